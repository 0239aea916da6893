"""A request's latency receipt: the gateway's own parts around those that the router measured."""

from dataclasses import dataclass, field

from moesaic.v1 import common_pb2
from services.gateway.sequence import Finish
from services.gateway.stays import EarlierStays, add_parts

GATEWAY_PARTS = (
    "gateway_queue_nanos",
    "tokenise_nanos",
    "gateway_router_nanos",
    "lost_router_nanos",
    "detokenise_nanos",
)


@dataclass
class GatewayTimes:
    """What the gateway measures of one request, by the monotonic clock in nanoseconds."""

    arrived_nanos: int
    tokenise_nanos: int = 0
    # For the client's rate and for a router's credit, the first time.
    queue_nanos: int = 0
    # When a router got the request for the last time; None where that one was lost.
    taken_nanos: int | None = None
    # After the router's end alone; what came before overlaps with the router's steps.
    detokenise_nanos: int = 0
    # At routers that did not end it, and before each of them.
    earlier: EarlierStays = field(default_factory=EarlierStays)


def write_receipt(
    times: GatewayTimes, finish: Finish | None, *, ended_nanos: int
) -> common_pb2.LatencyReceipt:
    """The whole receipt. Each part was measured on its own; what they leave of the whole is shown
    as unaccounted.

    Without the router's `finish` its parts are missing, and so unaccounted.
    """
    earlier = times.earlier
    receipt = common_pb2.LatencyReceipt(
        gateway_router_nanos=earlier.call_nanos,
        lost_router_nanos=earlier.lost_nanos,
        resumptions=earlier.num_resumptions,
        gateway_queue_nanos=times.queue_nanos + earlier.queue_nanos,
        tokenise_nanos=times.tokenise_nanos,
        detokenise_nanos=times.detokenise_nanos,
        end_to_end_nanos=ended_nanos - times.arrived_nanos,
    )
    add_parts(receipt, earlier.parts)
    if finish is not None:
        add_parts(receipt, finish.message.receipt)
        if times.taken_nanos is not None:
            call_nanos = finish.received_nanos - times.taken_nanos
            receipt.gateway_router_nanos += max(0, call_nanos - finish.message.router_nanos)
    accounted = sum(getattr(receipt, part) for part in GATEWAY_PARTS)
    accounted += phase_nanos(receipt.prefill) + phase_nanos(receipt.decode)
    receipt.unaccounted_nanos = max(0, receipt.end_to_end_nanos - accounted)
    return receipt


def queue_nanos(receipt: common_pb2.LatencyReceipt) -> int:
    """Until the first step of it: in the gateway, and for the router to take it into one."""
    return receipt.gateway_queue_nanos + receipt.prefill.step_wait_nanos


def phase_nanos(phase: common_pb2.PhaseReceipt) -> int:
    """All that was measured of one phase."""
    return sum(value for field, value in phase.ListFields() if field.name.endswith("_nanos"))
