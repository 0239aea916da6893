"""Where a call's time went, as answers over HTTP say it."""

import time
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from moesaic.v1 import common_pb2
from services.gateway.generation import Completed
from services.gateway.receipt import phase_nanos, queue_nanos

NANOS_PER_MILLI = 1e6
# Of each phase of a receipt.
EXPERT_PARTS = ("expert_queue_nanos", "expert_compute_nanos")


@dataclass
class CallTimes:
    """By the monotonic clock, in nanoseconds; to be made when the request is there."""

    arrived: int = field(default_factory=time.monotonic_ns)
    first_token: int | None = None
    last_token: int = 0

    def note_tokens(self) -> None:
        """Some tokens came."""
        self.last_token = time.monotonic_ns()
        if self.first_token is None:
            self.first_token = self.last_token


def metrics_of(times: CallTimes, end: Completed, num_tokens: int) -> dict[str, float | None]:
    """By vLLM's names, in milliseconds, and tokens per second after the first.

    `end` is the longest of the call's continuations, `num_tokens` what all have together.
    """
    first = times.first_token or times.last_token
    generation = (times.last_token - first) / NANOS_PER_MILLI
    later, of_one = num_tokens - 1, end.usage.completion_tokens - 1
    return {
        "time_to_first_token_ms": (
            None if times.first_token is None else _millis(first - times.arrived)
        ),
        "generation_time_ms": round(generation, 3),
        "queue_time_ms": _millis(queue_nanos(end.receipt)),
        "mean_itl_ms": round(generation / of_one, 3) if of_one > 0 else None,
        "tokens_per_second": (
            round(later / generation * 1e3, 3) if later > 0 and generation > 0 else None
        ),
    }


def moesaic_of(end: Completed, trace_id: str) -> dict[str, Any]:
    """What no other server tells: the receipt itself, and what the bits hold for."""
    receipt = end.receipt
    return {
        "trace_id": trace_id,
        "receipt": _numbers(receipt),
        "slowest_service": receipt.slowest_service,
        "retries": receipt.retries,
        "numerics_fingerprint": end.usage.numerics_fingerprint,
        "seed": end.usage.seed,
    }


def server_timing(receipt: common_pb2.LatencyReceipt) -> str:
    """The header `Server-Timing`, in milliseconds; browsers show it."""
    phases = (receipt.prefill, receipt.decode)
    parts = {
        "queue": queue_nanos(receipt),
        "tokenise": receipt.tokenise_nanos,
        "prefill": phase_nanos(receipt.prefill),
        "decode": phase_nanos(receipt.decode),
        "wire": sum(phase.wire_nanos for phase in phases),
        "straggler": sum(phase.straggler_wait_nanos for phase in phases),
        "expert": sum(getattr(phase, part) for phase in phases for part in EXPERT_PARTS),
        "total": receipt.end_to_end_nanos,
    }
    return ", ".join(f"{name};dur={_millis(nanos):g}" for name, nanos in parts.items())


def _numbers(message: Message) -> dict[str, Any]:
    """All fields by name, numbers as numbers."""
    values = ((each.name, getattr(message, each.name)) for each in message.DESCRIPTOR.fields)
    return {name: _numbers(one) if isinstance(one, Message) else one for name, one in values}


def _millis(nanos: int) -> float:
    return round(nanos / NANOS_PER_MILLI, 3)
