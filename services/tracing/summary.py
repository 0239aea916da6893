"""A stored trace in the few figures that a list of traces shows."""

from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.tracing.spans import NANOS_PER_MICRO
from services.tracing.store import StoredTrace
from services.tracing.tags import tags_of

Facts = dict[str, str | int | float | None]

REQUEST, SEQUENCE, CALL = "gateway.generate", "router.sequence", "router.expert"
# Of a sequence's parts, those in which rows are on their way, or wait for the slowest to come back.
COMMUNICATION = ("encode", "wire", "straggler_wait")
WAITING = "step_wait"  # before the first step: no part of the critical path of steps


def summary_document(trace: StoredTrace) -> dict[str, Any]:
    """Where the trace begins, how long it took and how many spans each service has in it, and of a
    request what tells it from others; times in microseconds.
    """
    assert trace.head is not None
    _, _, service, name = trace.head
    return {
        "traceID": trace.trace_id.hex(),
        "rootService": service,
        "rootOperation": name,
        "startTime": trace.started // NANOS_PER_MICRO,
        "duration": max(0, trace.ended - trace.started) // NANOS_PER_MICRO,
        "services": dict(sorted(trace.num_spans.items())),
        "numErrors": trace.num_errors,
        "request": _facts(trace),
    }


def _facts(trace: StoredTrace) -> Facts:
    """What the request's own spans say; nothing where they are not here."""
    facts: Facts = {}
    addresses, services = dict[bytes, str](), dict[bytes, str]()
    straggler = ""
    for recorded in [*trace.spans]:
        span = recorded.decoded()
        services[span.parent_span_id] = recorded.source.service
        if span.name == CALL:
            addresses[span.span_id] = str(_attributes(span).get("server.address", ""))
        elif span.name in (REQUEST, SEQUENCE):
            told = _attributes(span)
            facts |= _tokens(told)
            straggler = str(told.get("moesaic.straggler", straggler))
            if span.name == SEQUENCE:
                facts["communication"] = _communication(told)
    if straggler:
        called = (services.get(span_id) for span_id, one in addresses.items() if one == straggler)
        facts["straggler"] = next((name for name in called if name), straggler)
    return facts


def _tokens(told: dict[str, Any]) -> Facts:
    first = told.get("moesaic.first_token_nanos")
    found: Facts = {
        "inputTokens": told.get("gen_ai.usage.input_tokens"),
        "outputTokens": told.get("gen_ai.usage.output_tokens"),
        "firstToken": first // NANOS_PER_MICRO if isinstance(first, int) else None,
        "status": told.get("error.type"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _communication(told: dict[str, Any]) -> float | None:
    parts = {
        key.removeprefix("moesaic.").removesuffix("_nanos"): value
        for key, value in told.items()
        if key.endswith("_nanos") and isinstance(value, int)
    }
    whole = sum(nanos for part, nanos in parts.items() if part != WAITING)
    return sum(parts.get(part, 0) for part in COMMUNICATION) / whole if whole else None


def _attributes(span: Span) -> dict[str, Any]:
    return {tag.key: tag.value for tag in tags_of(span.attributes)}
