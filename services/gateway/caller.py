"""Who calls: what a call's metadata says about its client."""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import grpc

from services.gateway.deadline import Deadline

# Credentials are told apart, never kept: their digests mean nothing outside this process.
_DIGEST_KEY = secrets.token_bytes(32)


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
        metadata = _as_text(context.invocation_metadata() or ())
        remaining = context.time_remaining()
        seconds = (
            default_timeout_seconds if remaining is None else min(remaining, max_timeout_seconds)
        )
        return cls(
            client=client_name(metadata.get("authorization"), context.peer()),
            deadline=Deadline.after(seconds),
            traceparent=metadata.get("traceparent", ""),
            tracestate=metadata.get("tracestate", ""),
        )


def client_name(credential: str | None, peer: str) -> str:
    """What a client's rate is kept by: its credential's digest, else its address
    without the port.
    """
    if credential:
        return hashlib.blake2b(credential.encode(), digest_size=16, key=_DIGEST_KEY).hexdigest()
    if peer.startswith(("ipv4:", "ipv6:")):
        return peer.rpartition(":")[0]
    return peer


def _as_text(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    return {key: value for key, value in metadata if isinstance(value, str)}
