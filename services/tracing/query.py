"""What a search of Jaeger's query API asks for, read from its parameters."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from multidict import MultiMapping

from services.tracing.spans import NANOS_PER_MICRO, TRACE_ID_BYTES
from services.wire.errors import InvalidRequest
from services.wire.quoting import quoted

Parameters = MultiMapping[str]

DEFAULT_LIMIT, MAX_LIMIT = 100, 1_500
DEFAULT_LOOKBACK = "48h"
NANOS_OF_UNIT = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
DURATION_PART = r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)"
# Above what 64 bits of nanoseconds hold there is no time; a longer number is not even parsed.
MAX_DIGITS = 18


@dataclass(frozen=True)
class Query:
    """A search for traces with a span that is all of this; times are nanoseconds since 1970, ids
    are ORed.
    """

    trace_ids: tuple[bytes, ...]
    service: str
    operation: str
    tags: Mapping[str, str]
    started_from: int
    started_to: int
    min_nanos: int
    max_nanos: int | None
    limit: int

    @classmethod
    def from_parameters(cls, parameters: Parameters, now_nanos: int) -> "Query":
        """The search that the parameters name; raises InvalidRequest for one that means nothing.

        Beyond Jaeger's it may do without a service, and then looks at all of them.
        """
        end = _micros(parameters, "end", now_nanos)
        lookback = parameters.get("lookback", DEFAULT_LOOKBACK)
        # Jaeger's page says `custom` where it says the start too.
        before = nanos_in(DEFAULT_LOOKBACK if lookback == "custom" else lookback, "lookback")
        longest = parameters.get("maxDuration", "")
        return cls(
            trace_ids=tuple(trace_id_in(text) for text in parameters.getall("traceID", [])),
            service=parameters.get("service", ""),
            operation=parameters.get("operation", ""),
            tags=dict(_tags(parameters)),
            started_from=_micros(parameters, "start", end - before),
            started_to=end,
            min_nanos=nanos_in(parameters.get("minDuration", "") or "0s", "minDuration"),
            max_nanos=nanos_in(longest, "maxDuration") if longest else None,
            limit=_limit(parameters.get("limit", "") or str(DEFAULT_LIMIT)),
        )


def trace_id_in(text: str) -> bytes:
    """The trace id that 1 to 32 hexadecimal digits are; raises InvalidRequest for anything else."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,32}", text):
        raise InvalidRequest(f"{quoted(text)} is no trace id: 1 to 32 hexadecimal digits")
    return bytes.fromhex(text.zfill(2 * TRACE_ID_BYTES))


def nanos_in(text: str, name: str) -> int:
    """The duration that a text such as `1.5s`, `200ms` or `1h30m` says."""
    if len(text) > MAX_DIGITS or not re.fullmatch(f"({DURATION_PART})+", text):
        raise InvalidRequest(
            f"{name} is {quoted(text)}, which is no duration such as 1.5s, 200ms or 1h30m"
        )
    return round(
        sum(float(number) * NANOS_OF_UNIT[unit] for number, unit in re.findall(DURATION_PART, text))
    )


def whole_number_in(text: str, name: str) -> int:
    """The whole number from 0 on that a text says."""
    if len(text) > MAX_DIGITS or not re.fullmatch("[0-9]+", text):
        raise InvalidRequest(f"{name} is {quoted(text)}, which is no whole number")
    return int(text)


def _micros(parameters: Parameters, name: str, default_nanos: int) -> int:
    text = parameters.get(name, "")
    return whole_number_in(text, name) * NANOS_PER_MICRO if text else default_nanos


def _limit(text: str) -> int:
    limit = whole_number_in(text, "limit")
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit is {limit}, which is not from 1 to {MAX_LIMIT}")
    return limit


def _tags(parameters: Parameters) -> Iterator[tuple[str, str]]:
    for text in parameters.getall("tag", []):
        key, colon, value = text.partition(":")
        if not key or not colon:
            raise InvalidRequest(f"tag is {quoted(text)}, which is not of the form key:value")
        yield key, value
    for text in parameters.getall("tags", []):
        try:
            tags = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("tags is no JSON") from error
        if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
            raise InvalidRequest("tags is no JSON object of texts")
        yield from tags.items()
