"""Which of a step's spans are recorded, in whose trace, and how often a request is traced to its
layers.
"""

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from services.router.engine.sequence import EndReason, Order, Sequence, TraceDetail
from services.router.engine.spans import NO_SPANS, StepSpans, spans_of_step
from services.router.engine.tracing import BURST_NANOS, LEAST_STEPS, LayerShare, TracePolicy
from services.router.times.blame import Blame
from services.router.times.receipt import Parts, ReplyTimes, SequenceReceipt
from services.runtime.span_writing import SpanRef
from services.wire.errors import Unavailable
from services.wire.sampling import Sampling
from tests.recorded_spans import RecordedSpans, attributes_of, recorded_spans

REQUEST, STEP, LAYER = TraceDetail.REQUEST, TraceDetail.STEP, TraceDetail.LAYER
SECOND = 1_000_000_000


def tracing(share: float = 0.0, default: TraceDetail = STEP) -> TracePolicy:
    return TracePolicy.of(default, layers_share=share)


def sequence_of(
    tracing: TracePolicy, detail: TraceDetail = TraceDetail.UNSPECIFIED, *, is_sampled: bool = True
) -> Sequence:
    parent = SpanRef.root()._replace(is_sampled=is_sampled)
    order = Order((0,), Sampling(), 1, trace_parent=parent, trace_detail=detail)
    return Sequence(1, order, SequenceReceipt(), tracing.begin(order))


def compute_layer(spans: StepSpans, *failures: str) -> list[str]:
    """A layer with a frame for each attempt, the failed ones first; the traceparents that the
    services saw.
    """
    layer, seen = spans.begin_layer(2, 10), []
    for attempt, failure in enumerate((*failures, ""), 1):
        frame = layer.begin_frame("a:1", 20, rows=1, pairs=2, num_bytes=64, experts=lambda: [3, 7])
        seen.append(frame.traceparent)
        frame.end(None if failure else ReplyTimes("a:1", 30, 90, 10, 20, 5), attempt, failure)
    layer.part("gate", 10, 20)
    layer.end(100, Blame("a:1", 70))
    return seen


def step(
    tracing: TracePolicy, *sequences: Sequence, failures: tuple[str, ...] = (), nanos: int = 100
) -> list[str]:
    spans = spans_of_step(tracing, sequences, 0, 0)
    seen = compute_layer(spans, *failures)
    spans.end(Parts(dense=nanos), 1)
    return seen


def test_without_a_sampled_request_nothing_is_recorded() -> None:
    ours = tracing()
    with recorded_spans():
        unsampled = sequence_of(ours, LAYER, is_sampled=False)
        assert spans_of_step(ours, [unsampled], 0, 0) is NO_SPANS
        traced = sequence_of(ours, LAYER)
    assert spans_of_step(ours, [traced], 0, 0) is NO_SPANS  # nobody records any more
    assert unsampled.trace is None


def test_the_layers_are_in_the_trace_of_who_asked_and_the_others_link_there() -> None:
    ours = tracing()
    with recorded_spans() as recorded:
        sequences = [sequence_of(ours, detail) for detail in (STEP, LAYER, REQUEST, LAYER)]
        step(ours, *sequences)
    leader, *others = recorded.named("router.step")
    parents = [sequence.trace.span.span_id for sequence in sequences if sequence.trace is not None]
    assert [leader.parent_span_id, *(span.parent_span_id for span in others)] == [
        parents[1],
        parents[0],
        parents[3],
    ]
    assert not leader.links
    assert [[link.span_id for link in span.links] for span in others] == [[leader.span_id]] * 2
    (layer,) = recorded.named("router.layer")
    assert (layer.trace_id, layer.parent_span_id) == (leader.trace_id, leader.span_id)


def test_a_step_in_which_a_frame_failed_keeps_its_layers() -> None:
    ours = tracing()
    with recorded_spans() as recorded:
        traced = sequence_of(ours)
        assert step(ours, traced) == [""]
        assert not recorded.named("router.layer")
        first, second = step(ours, traced, failures=("refused",))
    failed, answered = recorded.named("router.expert")
    # The service that failed was asked before anybody knew; the next one records its side as well.
    assert first == ""
    assert SpanRef.parse(second) == SpanRef(answered.trace_id, answered.span_id)
    assert (failed.status.code, failed.status.message) == (Status.STATUS_CODE_ERROR, "refused")
    assert [attributes_of(frame)["moesaic.attempt"] for frame in (failed, answered)] == [1, 2]
    assert attributes_of(kept_step(recorded))["moesaic.kept"] == "failed"


def test_a_step_in_which_a_frame_was_sent_to_two_is_no_step_that_failed() -> None:
    ours = tracing()
    with recorded_spans() as recorded:
        spans = spans_of_step(ours, [sequence_of(ours)], 0, 0)
        layer = spans.begin_layer(2, 10)
        layer.begin_frame(
            "a:1", 20, rows=1, pairs=2, num_bytes=64, experts=lambda: [3, 7]
        ).pass_over(1)
        spans.end(Parts(dense=100), 1)
    assert recorded.named("router.step")
    assert not recorded.named("router.layer")


def test_a_step_that_is_slow_for_its_size_keeps_its_layers() -> None:
    ours = tracing()
    with recorded_spans() as recorded:
        traced = sequence_of(ours)
        step(ours, traced, nanos=9_000)  # nothing to compare with
        for _ in range(LEAST_STEPS):
            step(ours, traced, nanos=1_000)
        assert not recorded.named("router.layer")
        step(ours, traced, nanos=9_000)
    assert len(recorded.named("router.layer")) == 1
    assert attributes_of(kept_step(recorded))["moesaic.kept"] == "slow"


def test_a_sequence_that_failed_says_why_in_its_span() -> None:
    ours = tracing()
    with recorded_spans() as recorded:
        traced = sequence_of(ours)
        traced.end(EndReason.ERROR, Unavailable("an expert is lost"))
        ours.end(traced)
    (span,) = recorded.spans
    assert (span.name, span.kind) == ("router.sequence", Span.SPAN_KIND_SERVER)
    assert (span.status.code, span.status.message) == (
        Status.STATUS_CODE_ERROR,
        "an expert is lost",
    )


def test_one_request_at_a_time_is_traced_to_its_layers_for_a_share_of_the_time() -> None:
    share = LayerShare(0.1, now=0)
    assert share.choose(0)
    assert not share.choose(SECOND)  # the first one has not ended
    share.spend(BURST_NANOS + SECOND)
    share.give_back()
    assert not share.choose(10 * SECOND)
    assert share.choose(12 * SECOND)
    share.give_back()
    share.spend(BURST_NANOS)
    assert share.choose(1000 * SECOND)
    share.spend(BURST_NANOS)  # a long pause saves up no more than that
    share.give_back()
    assert not share.choose(1000 * SECOND)


def test_the_share_is_of_requests_that_say_nothing_where_steps_are_the_default() -> None:
    with recorded_spans():
        for default, detail, expected in [
            (STEP, TraceDetail.UNSPECIFIED, LAYER),
            (STEP, STEP, STEP),
            (REQUEST, TraceDetail.UNSPECIFIED, REQUEST),
            (LAYER, TraceDetail.UNSPECIFIED, LAYER),
        ]:
            trace = sequence_of(tracing(0.5, default), detail).trace
            assert trace is not None
            assert trace.detail is expected


def kept_step(recorded: RecordedSpans) -> Span:
    (layer,) = recorded.named("router.layer")
    (kept,) = (
        span for span in recorded.named("router.step") if span.span_id == layer.parent_span_id
    )
    return kept
