"""Where requests spent their time: the medians of their latency receipts, part by part."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from moesaic.v1 import common_pb2
from services.cli.bench.statistics import median
from services.cli.cost import AFTER, BEFORE, NANOS_PER_MILLI, PHASE_PARTS


class TimeKind(StrEnum):
    """What a part of the time is."""

    COMPUTING = "computing"
    COMMUNICATION = "communication"
    WAITING = "waiting"
    UNACCOUNTED = "unaccounted"


# A single process would have none of these: building frames, carrying them, and gathering the
# replies.
COMMUNICATION = {"gateway_router_nanos", "encode_nanos", "wire_nanos", "combine_nanos"}
WAITING = {
    "gateway_queue_nanos",
    "lost_router_nanos",
    "step_wait_nanos",
    "expert_queue_nanos",
    "straggler_wait_nanos",
    "lane_wait_nanos",
}


@dataclass(frozen=True)
class ReceiptPart:
    """One part of the requests' time, by its field in the protos: medians over the requests.

    `share` is of the request's time at the gateway, from its arrival to its end.
    """

    name: str
    label: str
    kind: TimeKind
    milliseconds: float
    share: float


@dataclass(frozen=True)
class Spent:
    """Where the time went: every part, and the kinds of parts taken together; medians over the
    requests.
    """

    parts: Sequence[ReceiptPart]
    shares: dict[TimeKind, float]
    decode_step_milliseconds: float


def spent(receipts: Sequence[common_pb2.LatencyReceipt]) -> Spent:
    """The medians of the receipts; shares of each request are taken first, then their median."""
    parts = [_part(name, label, receipts) for name, label in (*BEFORE, *PHASE_PARTS, *AFTER)]
    shares = {kind: median([_share_of(kind, receipt) for receipt in receipts]) for kind in TimeKind}
    return Spent(parts, shares, median([_decode_step(receipt) for receipt in receipts]))


def _part(name: str, label: str, receipts: Sequence[common_pb2.LatencyReceipt]) -> ReceiptPart:
    nanos = [_nanos(name, receipt) for receipt in receipts]
    shares = [_share(taken, receipt) for taken, receipt in zip(nanos, receipts, strict=True)]
    return ReceiptPart(name, label, _kind(name), median(nanos) / NANOS_PER_MILLI, median(shares))


def _nanos(name: str, receipt: common_pb2.LatencyReceipt) -> int:
    """A part of a receipt, prefill and decode together."""
    if name in common_pb2.LatencyReceipt.DESCRIPTOR.fields_by_name:
        return int(getattr(receipt, name))
    return int(getattr(receipt.prefill, name) + getattr(receipt.decode, name))


def _share_of(kind: TimeKind, receipt: common_pb2.LatencyReceipt) -> float:
    names = [name for name, _ in (*BEFORE, *PHASE_PARTS, *AFTER) if _kind(name) == kind]
    return _share(sum(_nanos(name, receipt) for name in names), receipt)


def _share(nanos: int, receipt: common_pb2.LatencyReceipt) -> float:
    return nanos / receipt.end_to_end_nanos if receipt.end_to_end_nanos else 0.0


def _decode_step(receipt: common_pb2.LatencyReceipt) -> float:
    nanos = sum(getattr(receipt.decode, name) for name, _ in PHASE_PARTS)
    return nanos / NANOS_PER_MILLI / receipt.decode.steps if receipt.decode.steps else 0.0


def _kind(name: str) -> TimeKind:
    if name == "unaccounted_nanos":
        return TimeKind.UNACCOUNTED
    if name in COMMUNICATION:
        return TimeKind.COMMUNICATION
    return TimeKind.WAITING if name in WAITING else TimeKind.COMPUTING
