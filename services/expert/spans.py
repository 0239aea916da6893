"""The span of a frame in the trace of the step that sent it."""

import time

from services.expert.admitted_frame import AdmittedFrame, FrameAnswer
from services.runtime.span_writing import SpanKind, SpanRef, encode_span
from services.runtime.tracing import recorder

COMPUTE_SPAN = "expert.compute"


def record_frame(admitted: AdmittedFrame, answer: FrameAnswer) -> None:
    """Record what became of a frame, as a span that ends now; nothing where the step is not traced
    so deep.
    """
    frame = admitted.frame
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
    attributes: dict[str, str | int] = {
        "moesaic.layer": frame.layer,
        "moesaic.rows": frame.num_rows,
        "moesaic.pairs": len(frame.pair_rows),
        "moesaic.bytes": admitted.num_bytes,
        "moesaic.decode_nanos": timings.decode_nanos,
        "moesaic.queue_nanos": timings.queue_nanos,
        "moesaic.compute_nanos": timings.compute_nanos,
        "moesaic.encode_nanos": timings.encode_nanos,
        "moesaic.batch_frames": answer.batch_frames,
        "moesaic.failed_pairs": sum(len(failure.pairs) for failure in answer.failures),
    }
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
