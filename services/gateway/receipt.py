"""A request's latency receipt: the gateway's own parts around those that the router measured."""

from dataclasses import dataclass

from moesaic.v1 import common_pb2
from services.gateway.sequence import Finish


@dataclass
class GatewayTimes:
    """What the gateway measures of one request, by the monotonic clock in nanoseconds."""

    arrived_nanos: int
    tokenise_nanos: int = 0
    # For the client's rate and for a router's credit.
    queue_nanos: int = 0
    # When a router got the request for the last time.
    taken_nanos: int | None = None
    # After the router's end alone; what came before overlaps with the router's steps.
    detokenise_nanos: int = 0


def write_receipt(
    times: GatewayTimes, finish: Finish | None, *, ended_nanos: int
) -> common_pb2.LatencyReceipt:
    """The whole receipt. Each part was measured on its own; what they leave of the whole is shown
    as unaccounted.

    Without the router's `finish` its parts are missing, and so unaccounted.
    """
    receipt = common_pb2.LatencyReceipt()
    router_nanos = 0
    if finish is not None:
        receipt.CopyFrom(finish.message.receipt)
        router_nanos = _router_nanos(receipt)
        if times.taken_nanos is not None:
            call_nanos = finish.received_nanos - times.taken_nanos
            receipt.gateway_router_nanos = max(0, call_nanos - finish.message.router_nanos)
    receipt.end_to_end_nanos = ended_nanos - times.arrived_nanos
    receipt.gateway_queue_nanos = times.queue_nanos
    receipt.tokenise_nanos = times.tokenise_nanos
    receipt.detokenise_nanos = times.detokenise_nanos
    gateway_nanos = (
        times.queue_nanos
        + times.tokenise_nanos
        + receipt.gateway_router_nanos
        + times.detokenise_nanos
    )
    receipt.unaccounted_nanos = max(0, receipt.end_to_end_nanos - gateway_nanos - router_nanos)
    return receipt


def _router_nanos(receipt: common_pb2.LatencyReceipt) -> int:
    return sum(
        value
        for phase in (receipt.prefill, receipt.decode)
        for field, value in phase.ListFields()
        if field.name.endswith("_nanos")
    )
