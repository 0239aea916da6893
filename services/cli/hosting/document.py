"""The placement as a file: JSON that people write by hand and `moesaic placement export` writes."""

import json
from collections.abc import Iterable
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moesaic.v1 import router_pb2
from services.runtime.host_port import split_host_port
from services.wire.errors import InvalidRequest

MAX_EXPERT = 65_535  # so that a slip of the hand is no list of billions


class PlacementDocument(BaseModel):
    """What each service is to host: by its address, then by layer, experts as ranges such as
    `0-3,7`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model_digest: str = Field(
        "", description="digest of the checkpoint that it is for; empty for whatever is served"
    )
    services: dict[str, dict[str, str]]

    @field_validator("services")
    @classmethod
    def _experts_are_ranges(cls, services: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        for address, layers in services.items():
            try:
                split_host_port(address)
            except ValueError as error:
                raise ValueError(f"{address}: {error}") from error
            for layer, ranges in layers.items():
                if not layer.isdecimal() or int(layer) > MAX_EXPERT:
                    raise ValueError(f"{address}: {layer!r} is no layer")
                try:
                    numbers_in(ranges)
                except InvalidRequest as error:
                    raise ValueError(f"{address}: layer {layer}: {error}") from error
        return services

    @classmethod
    def from_response(cls, placement: router_pb2.GetPlacementResponse) -> "PlacementDocument":
        """The placement in force, of the services that are there."""
        return cls._of(
            placement.model_digest, (service for service in placement.services if service.is_live)
        )

    @classmethod
    def planned(cls, target: router_pb2.TargetPlacement) -> "PlacementDocument":
        """What the router would have hosted."""
        return cls._of(target.model_digest, target.services)

    @classmethod
    def _of(
        cls,
        model_digest: str,
        services: Iterable[router_pb2.PlacedService | router_pb2.TargetService],
    ) -> "PlacementDocument":
        hosted = {
            service.address: {
                str(hosted.layer): ranges_of(hosted.experts) for hosted in service.layers
            }
            for service in services
        }
        return cls(model_digest=model_digest, services=hosted)

    @classmethod
    def read(cls, text: str) -> "PlacementDocument":
        """What a file says. Raises InvalidRequest, saying where it is wrong."""
        try:
            return cls.model_validate(json.loads(text, object_pairs_hook=_without_repetition))
        except ValidationError as error:
            details = error.errors()[0]
            where = [str(part) for part in details["loc"]]
            raise InvalidRequest(
                ": ".join([*where, details["msg"].removeprefix("Value error, ")])
            ) from error
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"it is no JSON: {error}") from error

    def text(self) -> str:
        """As it is written to a file: one line for each layer of each service."""
        return json.dumps(self.model_dump(), indent=2) + "\n"

    def target(self) -> router_pb2.TargetPlacement:
        """As the router takes it."""
        services = [
            router_pb2.TargetService(
                address=address,
                layers=[
                    router_pb2.HostedLayer(layer=int(layer), experts=numbers_in(ranges))
                    for layer, ranges in layers.items()
                ],
            )
            for address, layers in self.services.items()
        ]
        return router_pb2.TargetPlacement(model_digest=self.model_digest, services=services)


def ranges_of(numbers: Iterable[int]) -> str:
    """Numbers as ranges: 0, 1, 2, 3 and 7 are `0-3,7`."""
    ordered = sorted(set(numbers))
    ends = [after for before, after in pairwise(ordered) if after != before + 1]
    starts = ordered[:1] + ends
    lasts = [before for before, after in pairwise(ordered) if after != before + 1] + ordered[-1:]
    return ",".join(
        str(one) if one == last else f"{one}-{last}"
        for one, last in zip(starts, lasts, strict=True)
    )


def numbers_in(ranges: str) -> list[int]:
    """The numbers that ranges stand for, ordered; none for an empty text.

    Raises InvalidRequest for what is no such text, or names a number above 65,535.
    """
    numbers: set[int] = set()
    for part in filter(None, ranges.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidRequest(f"{part!r} is no range of experts such as 0-3")
        end = int(last) if dash else int(first)
        if not int(first) <= end <= MAX_EXPERT:
            raise InvalidRequest(f"{part!r} is no range of experts from 0 to {MAX_EXPERT}")
        numbers.update(range(int(first), end + 1))
    return sorted(numbers)


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Of a key that stands twice JSON would silently keep the last."""
    if len(twice := dict(pairs)) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in twice if keys.count(key) > 1)!r} stands twice")
    return twice
