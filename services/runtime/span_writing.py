"""Spans in OTLP's encoding, written once they have ended: in a small part of the time that the SDK
takes.
"""

import enum
import re
from collections.abc import Iterable
from functools import lru_cache
from random import Random
from struct import Struct
from typing import NamedTuple

# Of opentelemetry/proto/trace/v1/trace.proto: a field's number and wire type, as the byte before
# its value.
_TRACE_AND_SPAN_ID = Struct("2s16s2s8s")
_TIMES = Struct("<cQcQ")  # start_time_unix_nano = 7, end_time_unix_nano = 8
_START, _END = b"\x39", b"\x41"
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_TRACE_STATE, _NAME, _KIND = b"\x1a", b"\x2a", b"\x30"
_ATTRIBUTE, _LINK, _STATUS = b"\x4a", b"\x6a\x1c", b"\x7a"
_MESSAGE, _CODE_IS_ERROR = b"\x12", b"\x18\x02"
# Of opentelemetry/proto/common/v1/common.proto: KeyValue and AnyValue.
_KEY, _VALUE, _TEXT, _NUMBER = b"\x0a", b"\x12", b"\x0a", b"\x18"
# Of ScopeSpans, ResourceSpans and ExportTraceServiceRequest.
_SPANS, _SCOPE, _RESOURCE, _SCOPE_SPANS, _RESOURCE_SPANS = (
    b"\x12",
    b"\x0a",
    b"\x0a",
    b"\x12",
    b"\x0a",
)

# W3C Trace Context, version 00; a later version may go on after a hyphen.
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED_FLAG = 1

_ALL_BITS = (1 << 64) - 1  # of a negative number: its two's complement
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1

_random = Random()
_BYTES = tuple(bytes((value,)) for value in range(0x80))


class SpanKind(enum.IntEnum):
    """Which side of a call a span is; the numbers are OTLP's."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class SpanRef(NamedTuple):  # made for each span: a frozen dataclass takes three times as long
    """A span as others refer to it: by the ids of its trace [16 bytes] and its own [8 bytes]."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool = True
    tracestate: str = ""

    @classmethod
    def root(cls) -> "SpanRef":
        """The first span of a new trace."""
        return cls(_random.randbytes(16), new_span_id())

    @classmethod
    def parse(cls, traceparent: str, tracestate: str = "") -> "SpanRef | None":
        """The span that a W3C `traceparent` names; None where it is empty or malformed."""
        match = _TRACEPARENT.fullmatch(traceparent)
        if match is None or (match[1] == "00" and match[5]):
            return None
        return cls(
            bytes.fromhex(match[2]),
            bytes.fromhex(match[3]),
            bool(int(match[4], 16) & _SAMPLED_FLAG),
            tracestate,
        )

    @property
    def traceparent(self) -> str:
        """The W3C `traceparent` that names it."""
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{int(self.is_sampled):02x}"

    def child(self) -> "SpanRef":
        """A span below it, not yet written."""
        return SpanRef(self.trace_id, new_span_id(), self.is_sampled, self.tracestate)


def new_span_id() -> bytes:
    """A random id of 8 bytes."""
    return _random.randbytes(8)


def encode_span(
    name: str,
    kind: SpanKind,
    span: SpanRef,
    parent_id: bytes,
    started: int,
    ended: int,
    attributes: Iterable[bytes] = (),
    links: Iterable[SpanRef] = (),
    error: str | None = None,
) -> bytes:
    """A span as an element of ScopeSpans; times are nanoseconds since 1970, an empty `parent_id` is
    none.

    Attributes are such as `attribute` makes; with `error` its status is an error with that message.
    """
    trace_id, span_id, _, tracestate = span
    parts = [
        _TRACE_AND_SPAN_ID.pack(_TRACE_ID, trace_id, _SPAN_ID, span_id),
        _PARENT_ID + parent_id if parent_id else b"",
        _name_and_kind(name, kind),
        _TIMES.pack(_START, started, _END, ended if ended > started else started),
        *attributes,
    ]
    if tracestate:
        parts.append(_sized(_TRACE_STATE, _utf8(tracestate)))
    for link in links:
        parts.append(
            _LINK + _TRACE_AND_SPAN_ID.pack(_TRACE_ID, link.trace_id, _SPAN_ID, link.span_id)
        )
    if error is not None:
        parts.append(_sized(_STATUS, _sized(_MESSAGE, _utf8(error)) + _CODE_IS_ERROR))
    return _sized(_SPANS, b"".join(parts))


def encode_request(resource: bytes, scope: bytes, spans: Iterable[bytes]) -> bytes:
    """An ExportTraceServiceRequest with such spans of one process; `resource` and `scope` are
    encoded messages.
    """
    of_scope = _sized(_SCOPE, scope) + b"".join(spans)
    return _sized(_RESOURCE_SPANS, _sized(_RESOURCE, resource) + _sized(_SCOPE_SPANS, of_scope))


def attribute(key: str, value: str | int) -> bytes:
    """An attribute of a span."""
    return number(key, value) if isinstance(value, int) else text(key, value)


def number(key: str, value: int) -> bytes:
    """An attribute that is a number; what a peer measured may be more than OTLP has numbers for."""
    if 0 <= value < 0x80:
        return _small_number(key, value)
    encoded = _varint(max(_LEAST, min(value, _MOST)) & _ALL_BITS)
    return _number_head(key, len(encoded)) + encoded


@lru_cache(maxsize=4096)
def text(key: str, value: str) -> bytes:
    """An attribute that is a text."""
    return _sized(
        _ATTRIBUTE, _sized(_KEY, key.encode()) + _sized(_VALUE, _sized(_TEXT, _utf8(value)))
    )


@lru_cache(maxsize=4096)
def _small_number(key: str, value: int) -> bytes:
    return _number_head(key, 1) + _BYTES[value]


@lru_cache(maxsize=4096)
def _number_head(key: str, num_bytes: int) -> bytes:
    head = _sized(_KEY, key.encode()) + _VALUE + _varint(1 + num_bytes) + _NUMBER
    return _ATTRIBUTE + _varint(len(head) + num_bytes) + head


@lru_cache(maxsize=256)
def _name_and_kind(name: str, kind: SpanKind) -> bytes:
    return _sized(_NAME, name.encode()) + _KIND + _varint(kind)


def _utf8(text: str) -> bytes:
    """Half of a surrogate pair, which no UTF-8 has, is a question mark: no text may end what is
    traced.
    """
    return text.encode("utf-8", "replace")


def _sized(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _BYTES[value]
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
