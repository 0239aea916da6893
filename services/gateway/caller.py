"""Who calls: what a call's metadata says about its client."""

from dataclasses import dataclass
from typing import Self

import grpc

from services.gateway.deadline import Deadline
from services.runtime.doorkeeping import Metadata, host_of


@dataclass(frozen=True)
class Caller:
    """The client of one call: who it is, how long it waits, and the trace that it is in."""

    client: str
    deadline: Deadline
    traceparent: str
    tracestate: str

    @classmethod
    def from_context(
        cls,
        context: grpc.aio.ServicerContext,
        *,
        default_timeout_seconds: float,
        max_timeout_seconds: float,
    ) -> Self:
        """Read a call; without a deadline of its own it gets the default one, and none above the
        most.
        """
        metadata = tuple(context.invocation_metadata() or ())
        texts = _as_text(metadata)
        remaining = context.time_remaining()
        seconds = (
            default_timeout_seconds if remaining is None else min(remaining, max_timeout_seconds)
        )
        return cls(
            client=caller_name(metadata, context.peer()),
            deadline=Deadline.after(seconds),
            traceparent=texts.get("traceparent", ""),
            tracestate=texts.get("tracestate", ""),
        )


def caller_name(metadata: Metadata, peer: str) -> str:
    """Whose call it is: what rates, shares and turns are kept by.

    Its address without the port; never what a header says unchecked.
    """
    return host_of(peer)


def _as_text(metadata: Metadata) -> dict[str, str]:
    return {key: value for key, value in metadata if isinstance(value, str)}
