"""Spans in OTLP's encoding, written once they have ended, into its generated classes: in a small
part of the time that the SDK takes.
"""

import enum
import os
import re
from collections.abc import Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

# W3C Trace Context, version 00; a later version may go on after a hyphen.
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED_FLAG = 1

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
NO_ATTRIBUTES: Mapping[str, str | int] = MappingProxyType({})

# Of protobuf's encoding: a field that its length precedes.
_LENGTH_DELIMITED = 2

_random = Random()
# Else processes that are forked from one would call their spans by the same ids.
os.register_at_fork(after_in_child=_random.seed)


class SpanKind(enum.IntEnum):
    """Which side of a call a span is; the numbers are OTLP's."""

    INTERNAL = Span.SPAN_KIND_INTERNAL
    SERVER = Span.SPAN_KIND_SERVER
    CLIENT = Span.SPAN_KIND_CLIENT


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
    attributes: Mapping[str, str | int] = NO_ATTRIBUTES,
    links: Iterable[SpanRef] = (),
    error: str | None = None,
) -> bytes:
    """A span as ScopeSpans of it alone; put together, several are ScopeSpans of them all.

    Times are nanoseconds since 1970; an empty `parent_id` is none. With `error` its status is an
    error with that message. No text and no number is refused: what OTLP has none for is replaced.
    """
    alone = ScopeSpans()
    # Field by field: a constructor takes twice as long.
    written = alone.spans.add()
    written.trace_id, written.span_id, _, tracestate = span
    written.parent_span_id = parent_id
    written.name = name
    written.kind = kind  # type: ignore[assignment]  # an integer, as the generated enum's are
    written.start_time_unix_nano = started
    written.end_time_unix_nano = ended if ended > started else started
    add = written.attributes.add
    for key, content in attributes.items():
        attribute = add()
        attribute.key = key
        try:  # here rather than in a function, which would be a fifth of the whole
            if isinstance(content, str):
                attribute.value.string_value = content
            else:
                attribute.value.int_value = content
        except (ValueError, TypeError):
            _fill_with_what_there_is(attribute.value, content)
    if tracestate:
        written.trace_state = _utf8(tracestate)
    for other in links:
        link = written.links.add()
        link.trace_id, link.span_id = other.trace_id, other.span_id
    if error is not None:
        written.status.message, written.status.code = _utf8(error), Status.STATUS_CODE_ERROR
    return alone.SerializeToString()


def encode_request(resource: bytes, scope: str, spans: Iterable[bytes]) -> bytes:
    """An ExportTraceServiceRequest with such spans of one process; `resource` is encoded."""
    named = ScopeSpans(scope=InstrumentationScope(name=scope)).SerializeToString()
    of_process = _embedded(ResourceSpans, "resource", resource) + _embedded(
        ResourceSpans, "scope_spans", b"".join((named, *spans))
    )
    return _embedded(ExportTraceServiceRequest, "resource_spans", of_process)


def _embedded(parent: type[Message], field: str, content: bytes) -> bytes:
    """An encoded message as a field of `parent`. A megabyte of spans is not decoded and encoded
    again, which would hold the interpreter's lock for milliseconds.
    """
    tag = parent.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED
    return _varint(tag) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _fill_with_what_there_is(value: AnyValue, content: str | int) -> None:
    if isinstance(content, str):
        value.string_value = _utf8(content)
    else:  # what a peer measured may be more than OTLP has numbers for
        value.int_value = max(_LEAST, min(int(content), _MOST))


def _utf8(text: str) -> str:
    """Half of a surrogate pair, which no UTF-8 has, is a question mark: no text may end what is
    traced.
    """
    return text.encode("utf-8", "replace").decode()
