"""Refusals for load: the error that the client gets, and the count by reason."""

from enum import StrEnum

from opentelemetry import metrics

from services.wire.errors import Overloaded

REFUSALS = "moesaic.gateway.refusals"

_refusals = metrics.get_meter(__name__).create_counter(
    REFUSALS, unit="{request}", description="requests refused for load, by `reason`"
)


class Bound(StrEnum):
    """Which bound was reached."""

    CALLS = "calls"
    WAITING_REQUESTS = "waiting_requests"
    WAITING_TOKENS = "waiting_tokens"
    CLIENT_RATE = "client_rate"
    CLIENT_TOKENS = "client_tokens"


def count_from_zero() -> None:
    """Have each reason be there before its first refusal: rates miss a first one that is not."""
    for reason in Bound:
        _refusals.add(0, {"reason": reason.value})


def refuse(reason: Bound, message: str, *, retry_after_seconds: float) -> Overloaded:
    """Count a refusal; returns the error to raise."""
    _refusals.add(1, {"reason": reason.value})
    return Overloaded(message, retry_after_seconds=retry_after_seconds)
