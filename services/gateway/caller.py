"""Who calls: what a call's metadata says about its client."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import grpc

from services.gateway.clients import Client, Clients
from services.gateway.deadline import Deadline


@dataclass(frozen=True)
class Caller:
    """The client of one call: who it is, how long it waits, and the trace that it is in."""

    client: Client
    deadline: Deadline
    traceparent: str
    tracestate: str

    @classmethod
    def from_context(
        cls,
        context: grpc.aio.ServicerContext,
        clients: Clients,
        *,
        default_timeout_seconds: float,
        max_timeout_seconds: float,
    ) -> Self:
        """Read a call; without a deadline of its own it gets the default one, and none above the
        most. Raises Unauthenticated.
        """
        texts = _as_text(context.invocation_metadata() or ())
        remaining = context.time_remaining()
        seconds = (
            default_timeout_seconds if remaining is None else min(remaining, max_timeout_seconds)
        )
        return cls(
            client=clients.client_of(context),
            deadline=Deadline.after(seconds),
            traceparent=texts.get("traceparent", ""),
            tracestate=texts.get("tracestate", ""),
        )


def _as_text(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    return {key: value for key, value in metadata if isinstance(value, str)}
