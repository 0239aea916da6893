"""The span of a frame in the trace of the step that sent it."""

import time

from services.expert.job import AdmittedFrame, FrameAnswer
from services.runtime.span_writing import SpanKind, SpanRef, encode_span, number
from services.runtime.tracing import recorder

COMPUTE_SPAN = "expert.compute"


def record_frame(job: AdmittedFrame, answer: FrameAnswer) -> None:
    """Record what became of a frame, as a span that ends now; nothing where the step is not traced
    so deep.
    """
    frame = job.frame
    if not frame.traceparent or (recording := recorder()) is None:
        return
    parent = SpanRef.parse(frame.traceparent)
    if parent is None or not parent.is_sampled:
        return
    timings = answer.timings
    ended = time.time_ns()
    began = (
        ended
        - timings.decode_nanos
        - timings.queue_nanos
        - timings.compute_nanos
        - timings.encode_nanos
    )
    attributes = (
        number("moesaic.layer", frame.layer),
        number("moesaic.rows", frame.num_rows),
        number("moesaic.pairs", len(frame.pair_rows)),
        number("moesaic.bytes", job.num_bytes),
        number("moesaic.decode_nanos", timings.decode_nanos),
        number("moesaic.queue_nanos", timings.queue_nanos),
        number("moesaic.compute_nanos", timings.compute_nanos),
        number("moesaic.encode_nanos", timings.encode_nanos),
        number("moesaic.batch_frames", answer.batch_frames),
        number("moesaic.failed_pairs", sum(len(failure.pairs) for failure in answer.failures)),
    )
    error = None if answer.error is None else answer.error.message
    span = encode_span(
        COMPUTE_SPAN,
        SpanKind.SERVER,
        parent.child(),
        parent.span_id,
        began,
        ended,
        attributes,
        error=error,
    )
    recording.put((span,))
