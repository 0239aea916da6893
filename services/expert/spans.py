"""The span of a frame in the trace of the step that sent it."""

import time
from typing import NamedTuple

from services.expert.admitted_frame import AdmittedFrame, FrameAnswer
from services.runtime.span_writing import SpanKind, SpanRef, encode_span
from services.runtime.tracing import recorder
from services.wire.outcomes import Timings

COMPUTE_SPAN = "expert.compute"


class FrameRecord(NamedTuple):
    """What a span says of a frame."""

    traceparent: str
    layer: int
    num_rows: int
    num_pairs: int
    num_bytes: int
    batch_frames: int
    ended: int  # nanoseconds since 1970
    timings: Timings
    failed_pairs: int = 0
    error: str | None = None


def record_frame(admitted: AdmittedFrame, answer: FrameAnswer) -> None:
    """Record what became of a frame, as a span that ends now; nothing where the step is not traced
    so deep.
    """
    frame = admitted.frame
    if not frame.traceparent or recorder() is None:
        return
    record(
        FrameRecord(
            frame.traceparent,
            frame.layer,
            frame.num_rows,
            len(frame.pair_rows),
            admitted.num_bytes,
            answer.batch_frames,
            time.time_ns(),
            answer.timings,
            sum(len(failure.pairs) for failure in answer.failures),
            None if answer.error is None else answer.error.message,
        )
    )


def record(frame: FrameRecord) -> None:
    """Record the span of a frame; nothing where nobody records, or its step is not sampled."""
    recording, parent = recorder(), SpanRef.parse(frame.traceparent)
    if recording is None or parent is None or not parent.is_sampled:
        return
    timings = frame.timings
    attributes: dict[str, str | int] = {
        "moesaic.layer": frame.layer,
        "moesaic.rows": frame.num_rows,
        "moesaic.pairs": frame.num_pairs,
        "moesaic.bytes": frame.num_bytes,
        "moesaic.decode_nanos": timings.decode_nanos,
        "moesaic.queue_nanos": timings.queue_nanos,
        "moesaic.compute_nanos": timings.compute_nanos,
        "moesaic.encode_nanos": timings.encode_nanos,
        "moesaic.batch_frames": frame.batch_frames,
        "moesaic.failed_pairs": frame.failed_pairs,
    }
    span = encode_span(
        COMPUTE_SPAN,
        SpanKind.SERVER,
        parent.child(),
        parent.span_id,
        frame.ended - sum(timings),
        frame.ended,
        attributes,
        error=frame.error,
    )
    recording.put((span,))
