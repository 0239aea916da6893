"""Requests that failed, counted by reason and told in a sentence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from services.cli.bench.sample import RequestFailure, Sample
from services.wire.errors import ServingError

MAX_MESSAGE_CHARACTERS = 160


class RequestsFailed(ServingError):
    """Some requests of a load failed; the message says how many and why."""


@dataclass(frozen=True)
class FailureReason:
    """A status that requests failed with: how many, the first one's message, and when to try again.

    The least and the most of the advised seconds, where the gateway gave any.
    """

    status: str
    count: int
    message: str
    retry_after_seconds: tuple[float, float] | None

    def __str__(self) -> str:
        message = self.message
        if len(message) > MAX_MESSAGE_CHARACTERS:
            message = f"{message[:MAX_MESSAGE_CHARACTERS]}…"
        text = f"{self.count} {self.status}" + (f" ({message})" if message else "")
        if self.retry_after_seconds is None:
            return text
        least, most = self.retry_after_seconds
        span = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        return f"{text}, to be tried again after {span} s"


def reasons_of(samples: Iterable[Sample]) -> list[FailureReason]:
    """The reasons of the requests that failed, the most frequent one first."""
    failures = sorted(
        (sample.failure for sample in samples if sample.failure is not None), key=_status
    )
    reasons = [_reason(status, list(group)) for status, group in groupby(failures, key=_status)]
    return sorted(reasons, key=lambda reason: -reason.count)


def failure_sentence(samples: Sequence[Sample]) -> str | None:
    """How many of the requests failed and why; None where none did."""
    reasons = reasons_of(samples)
    if not reasons:
        return None
    num_failed = sum(reason.count for reason in reasons)
    return f"{num_failed} of {len(samples)} requests failed: {'; '.join(map(str, reasons))}"


def _status(failure: RequestFailure) -> str:
    return failure.status


def _reason(status: str, failures: Sequence[RequestFailure]) -> FailureReason:
    advised = [one.retry_after_seconds for one in failures if one.retry_after_seconds is not None]
    return FailureReason(
        status,
        len(failures),
        failures[0].message,
        (min(advised), max(advised)) if advised else None,
    )
