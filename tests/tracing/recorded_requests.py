"""Requests as a cluster records them, put into a store: two services, of which one hangs once."""

import time
from collections.abc import Mapping

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from services.tracing.spans import Source
from services.tracing.store import SpanStore

MICRO = 1_000
NUM_STEPS, NUM_LAYERS = 8, 4
ADDRESSES = {"expert-0": "127.0.0.1:7000", "expert-1": "127.0.0.1:7001"}
Attributes = Mapping[str, str | int]


class RecordedRequest:
    """Writes the spans of one trace into a store; times are microseconds from its start."""

    def __init__(self, store: SpanStore, trace_id: str, seconds_ago: int = 12) -> None:
        self._store, self._trace_id = store, bytes.fromhex(trace_id)
        self._began = time.time_ns() - seconds_ago * 10**9
        self._count = 0

    def span(
        self,
        name: str,
        service: str,
        parent: bytes,
        start: int,
        duration: int,
        attributes: Attributes,
        error: str | None = None,
    ) -> bytes:
        """Write one; its id."""
        self._count += 1
        began = self._began + start * MICRO
        span = Span(
            trace_id=self._trace_id,
            span_id=self._count.to_bytes(8, "big"),
            parent_span_id=parent,
            name=name,
            start_time_unix_nano=began,
            end_time_unix_nano=began + duration * MICRO,
            attributes=[_key_value(key, value) for key, value in attributes.items()],
        )
        if error is not None:
            span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=error))
        assert self._store.add(Source(service, ()), ("", ""), span)
        return span.span_id


def record_request(
    store: SpanStore, trace_id: str, *, hangs: bool = False, error: tuple[str, str] | None = None
) -> None:
    """A request of several steps; in the third layer of the sixth expert-0 hangs where it `hangs`.
    With an `error`, its status and message, the request has failed so.
    """
    made, at = RecordedRequest(store, trace_id), 1_000
    told: dict[str, str | int] = {"gen_ai.usage.input_tokens": 4, "gen_ai.usage.output_tokens": 8}
    of_request = {"moesaic.first_token_nanos": 9_000_000, **told}
    if error is not None:
        of_request["error.type"] = error[0]
    message = error and error[1]
    whole = NUM_STEPS * NUM_LAYERS * 2_500 + 200_000 * hangs
    root = made.span("gateway.generate", "gateway", b"", 0, whole, of_request, message)
    parts = {"moesaic.wire_nanos": 40, "moesaic.dense_nanos": 30, "moesaic.straggler_wait_nanos": 9}
    straggler = ADDRESSES["expert-0" if hangs else "expert-1"]
    told |= {"moesaic.straggler": straggler, "moesaic.step_wait_nanos": 99, **parts}
    sequence = made.span("router.sequence", "router", root, 500, whole - 600, told)
    for number in range(NUM_STEPS):
        hangs_here = hangs and number == 5
        length = NUM_LAYERS * 2_400 + 200_000 * hangs_here
        sums = {key: value * 20_000 for key, value in parts.items()} | {"moesaic.tokens": 1}
        step = made.span("router.step", "router", sequence, at, length, sums)
        for layer in range(NUM_LAYERS):
            at = _record_layer(made, step, layer, at, hangs=hangs_here and layer == 2)


def _record_layer(made: RecordedRequest, step: bytes, layer: int, at: int, *, hangs: bool) -> int:
    straggler = "expert-0" if hangs else "expert-1"
    length, waited = (202_300, 200_000) if hangs else (2_300, 1_900 + 50 * layer)
    attributes: dict[str, str | int] = {
        "moesaic.layer": layer,
        "moesaic.straggler": ADDRESSES[straggler],
        "moesaic.straggler_nanos": waited * MICRO,
    }
    if hangs:
        attributes |= {
            "moesaic.straggler_failing": "silent",
            "moesaic.straggler_instead": ADDRESSES["expert-1"],
        }
    span = made.span("router.layer", "router", step, at, length, attributes)
    made.span("router.gate", "router", span, at, 60, {"moesaic.layer": layer})
    for service, took in (("expert-0", 1_200), ("expert-1", 1_900 + 50 * layer)):
        if hangs and service == "expert-0":
            lost = {"server.address": ADDRESSES[service], "moesaic.experts": "3,7,11"}
            made.span("router.expert", "router", span, at + 80, 200_000, lost, "no answer in time")
            continue
        start = at + 80 + 200_050 * hangs
        call = made.span("router.expert", "router", span, start, took, _call(service, took))
        served = {"moesaic.queue_nanos": 100_000, "moesaic.compute_nanos": 300_000}
        made.span("expert.compute", service, call, start + took // 2, 400, served)
    return at + length + 100


def _call(service: str, took: int) -> Attributes:
    parts = {"encode": 100, "decode": 50, "queue": 100, "compute": 300}
    nanos = {f"moesaic.{part}_nanos": micros * MICRO for part, micros in parts.items()}
    wire = (took - sum(parts.values())) * MICRO
    return {"server.address": ADDRESSES[service], "moesaic.wire_nanos": wire, **nanos}


def _key_value(key: str, value: str | int) -> KeyValue:
    kept = AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
    return KeyValue(key=key, value=kept)
