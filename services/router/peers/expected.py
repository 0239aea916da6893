"""What an expert service must be to work for a router."""

from dataclasses import dataclass

from moesaic.v1 import common_pb2, expert_pb2
from services.wire.errors import BadState
from services.wire.frames import DTYPES
from services.wire.row_bytes import type_name


@dataclass(frozen=True)
class Expected:
    """What a service must be to work for this router.

    Rows travel in `wire_type`; with `sums_pairs` frames carry their pairs' weights.
    """

    model_digest: str
    element_type: int
    wire_type: "common_pb2.ElementType.ValueType"
    sums_pairs: bool
    hidden_size: int
    batch_invariant: bool
    moe_layers: tuple[int, ...]
    num_experts: int

    def check(self, address: str, description: expert_pb2.ExpertServiceDescribeResponse) -> None:
        """Raise BadState, naming what differs, when the service so described is another."""
        if description.model_digest != self.model_digest:
            raise BadState(
                f"expert service {address} cannot be used: its checkpoint is not the router's, "
                "their digests are "
                f"{description.model_digest} and {self.model_digest}; give both the same files, "
                "and where these have "
                "changed meanwhile put the former ones back or start everything again"
            )
        for name, theirs, ours in (
            ("dtype", description.dtype, self.element_type),
            ("hidden_size", description.hidden_size, self.hidden_size),
            ("batch_invariant", description.batch_invariant, self.batch_invariant),
            ("moe_layers", tuple(description.moe_layers), self.moe_layers),
            ("num_experts", description.num_experts, self.num_experts),
            ("number of expert_bytes", len(description.expert_bytes), len(self.moe_layers)),
        ):
            if theirs != ours:
                raise BadState(
                    f"expert service {address} cannot be used: its {name} is {theirs}, the "
                    f"router's is {ours}"
                )
        self._check_frame_bytes(address, description.max_frame_bytes)
        if not all(description.expert_bytes):
            raise BadState(
                f"expert service {address} cannot be used: an expert takes 0 of its expert_bytes"
            )
        taken = description.frame_dtypes or [description.dtype]
        if self.wire_type not in taken:
            raise BadState(
                f"expert service {address} cannot be used: it takes rows in "
                f"{' or '.join(map(_name, taken))}, the router's wire_dtype is "
                f"{_name(self.wire_type)}"
            )
        if self.sums_pairs and not description.sums_pairs:
            raise BadState(
                f"expert service {address} cannot be used: it does not sum pairs, which "
                "combine=partial needs"
            )

    def _check_frame_bytes(self, address: str, max_frame_bytes: int) -> None:
        # As much again as a row is for what surrounds it.
        least = 2 * self.hidden_size * DTYPES[self.wire_type].itemsize
        if max_frame_bytes < least:
            raise BadState(
                f"expert service {address} cannot be used: its max_frame_bytes is "
                f"{max_frame_bytes}, and a row with what surrounds it takes {least}"
            )

    def check_hosting(self, address: str, hosting: expert_pb2.WatchHostingResponse) -> None:
        """Raise BadState when the service hosts what the model does not have."""
        for hosted in hosting.experts:
            if hosted.layer not in self.moe_layers or hosted.expert >= self.num_experts:
                raise BadState(
                    f"expert service {address} cannot be used: it hosts expert {hosted.expert} of "
                    "layer "
                    f"{hosted.layer}, which the model does not have"
                )


def _name(element_type: "common_pb2.ElementType.ValueType") -> str:
    return type_name(DTYPES[element_type]) if element_type in DTYPES else f"type {element_type}"
