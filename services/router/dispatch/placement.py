"""Who computes what, as the dispatcher sees it: replaced as a whole whenever that changes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol
from zlib import crc32

import numpy as np
import numpy.typing as npt

from services.router.arrays import Indices
from services.router.dispatch.assignment import SEVERAL, Choices
from services.router.dispatch.frame_pairs import NOBODY
from services.router.peers.pace import Pace
from services.router.peers.stream import TimedReply
from services.router.peers.trust import Trust
from services.wire.expert_key import ExpertKey

Replicas = npt.NDArray[
    np.bool_
]  # [services, experts]: whether an expert of one layer is ready on a service

# Far below gRPC's limit on messages, so that one frame does not hold up the others for long.
MAX_FRAME_BYTES = 4 * 1024 * 1024


class FrameStream(Protocol):
    """Where a lane's frames for one service go."""

    def send(
        self, encode: Callable[[int, int], bytes], num_pairs: int, num_experts: int
    ) -> "asyncio.Future[TimedReply]":
        """Send the frame that `encode(frame_id, remaining_nanos)` writes, of pairs of so many
        experts. The future ends with the answer, or with a ServingError.
        """
        ...


class Service(Protocol):
    """An expert service as the dispatcher uses it: a stream for each lane, none while it is lost,
    its pace, and what is thought of its answers.
    """

    @property
    def address(self) -> str: ...

    @property
    def streams(self) -> Sequence[FrameStream]: ...

    @property
    def pace(self) -> Pace: ...

    @property
    def trust(self) -> Trust: ...


@dataclass(frozen=True)
class Unhosted:
    """What is known of experts that nobody hosts: what is amiss with the services, in words, and
    which are being loaded by whom.

    Of `num_lost` that lost their last replica `num_back` have one again. It `is_final` where no
    service is left that could load them: whoever needs them has nothing to wait for.
    """

    reasons: Sequence[str] = ()
    is_final: bool = False
    loading: Mapping[ExpertKey, str] = field(default_factory=dict)  # addresses
    num_lost: int = 0
    num_back: int = 0

    def state_of(self, layer: int, expert: int) -> str:
        """How it stands with an expert that nobody hosts, in words; empty where it never was."""
        if not self.num_lost:
            return ""
        address = self.loading.get(ExpertKey(layer, expert))
        does = "waits to be loaded" if address is None else f"is being loaded by {address}"
        back = f"{self.num_back} of {self.num_lost} that were lost are back"
        return f"expert {expert} of layer {layer} {does}; {back}"


NOTHING_AMISS = Unhosted()


@dataclass(frozen=True)
class Placement:
    """Services that frames can be sent to, and the experts of each layer that are ready on each.

    `owners` has for each layer the service that alone computes an expert, NOBODY, or SEVERAL;
    `max_frame_bytes` has what each service takes, where that is less than MAX_FRAME_BYTES.
    `being_tried` has what is ready on services that are not used yet, by address and layer.
    """

    services: Sequence[Service] = ()
    replicas: Mapping[int, Replicas] = field(default_factory=dict)
    max_frame_bytes: Sequence[int] = ()
    unhosted: Unhosted = NOTHING_AMISS
    being_tried: Mapping[str, Mapping[int, npt.NDArray[np.bool_]]] = field(default_factory=dict)
    owners: Mapping[int, Indices] = field(init=False)
    _choices: dict[int, Choices] = field(init=False, default_factory=dict)
    _most_rows: dict[int, Sequence[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "owners", {layer: _owners(ready) for layer, ready in self.replicas.items()}
        )

    def choices(self, layer: int) -> Choices:
        """The services to choose from, for each expert of the layer that is on several."""
        found = self._choices.get(layer)
        if (
            found is None
        ):  # made when the layer is first met: a placement may be replaced before it ever is
            found = self._choices[layer] = self._choices_of(layer)
        return found

    def candidates(self, layer: int, expert: int) -> Sequence[int]:
        """The services that the expert is ready on, in the order in which they are preferred."""
        owner = int(self.owners[layer][expert]) if layer in self.owners else NOBODY
        if owner == SEVERAL:
            return self.choices(layer)[expert]
        return () if owner == NOBODY else (owner,)

    def service_at(self, address: str) -> Service | None:
        """The service of this address; None where it is not, or no longer, used."""
        return next((service for service in self.services if service.address == address), None)

    def addresses_of(self, layer: int, expert: int) -> set[str]:
        """Of the services that the expert is ready on, or is on one that is being tried."""
        tried = self.being_tried.items()
        found = {address for address, ready in tried if layer in ready and ready[layer][expert]}
        return found | {self.services[one].address for one in self.candidates(layer, expert)}

    def most_in_frame(self, row_bytes: int) -> Sequence[int]:
        """How many rows of so many bytes may be in a frame to each service, or in its reply."""
        found = self._most_rows.get(row_bytes)
        if found is None:
            limits = self.max_frame_bytes or [MAX_FRAME_BYTES] * len(self.services)
            # Half of it is for what surrounds the rows: indices, request numbers, headers.
            found = [max(1, min(MAX_FRAME_BYTES, limit) // 2 // row_bytes) for limit in limits]
            self._most_rows[row_bytes] = found
        return found

    def _choices_of(self, layer: int) -> Choices:
        experts = np.flatnonzero(self.owners[layer] == SEVERAL)
        if not len(experts):
            return {}
        ready = self.replicas[layer][:, experts]
        ranks = self._preference(int(experts[-1]) + 1)[:, experts]
        orders = np.where(ready, ranks, np.iinfo(np.int64).max).argsort(axis=0, kind="stable")
        counts = ready.sum(axis=0).tolist()
        found = zip(experts.tolist(), orders.T.tolist(), counts, strict=True)
        return {expert: tuple(order[:count]) for expert, order, count in found}

    def _preference(self, num_experts: int) -> Indices:
        """A number that is random but fixed by expert and address, [services, experts]; the least
        is preferred.
        """
        mixed = self._salts[:, None] ^ (
            np.arange(num_experts, dtype=np.uint32) * np.uint32(0x9E3779B1)
        )
        mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x85EBCA6B)
        preference: Indices = (mixed ^ (mixed >> np.uint32(13))).astype(np.int64)
        return preference

    @cached_property
    def _salts(self) -> npt.NDArray[np.uint32]:
        return np.array(
            [crc32(service.address.encode()) for service in self.services], dtype=np.uint32
        )


def _owners(ready: Replicas) -> Indices:
    if not len(ready):
        return np.full(ready.shape[1], NOBODY, dtype=np.int64)
    counts = ready.sum(axis=0)
    owners: Indices = ready.argmax(axis=0).astype(np.int64, copy=False)
    owners[counts == 0] = NOBODY
    owners[counts > 1] = SEVERAL
    return owners
