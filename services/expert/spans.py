"""The span of a frame in the trace of the step that sent it."""

import time

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from services.expert.job import Answer, Job
from services.runtime.tracing import context_from, is_sampled

COMPUTE_SPAN = "expert.compute"

# Where the last hexadecimal digit of a traceparent's flags stands, and the digits that say "sampled". Most frames are
# of steps that are not, and are told apart before anything is parsed.
FLAGS_DIGIT = 54
SAMPLED = frozenset("13579bdf")

_tracer = trace.get_tracer(__name__)


def record_frame(job: Job, answer: Answer) -> None:
    """Record what became of a frame, as a span that ends now; nothing where the step is not sampled."""
    frame = job.frame
    if frame.traceparent[FLAGS_DIGIT : FLAGS_DIGIT + 1] not in SAMPLED:
        return
    context = context_from(frame.traceparent)
    if not is_sampled(context):
        return
    timings = answer.timings
    ended = time.time_ns()
    began = ended - timings.decode_nanos - timings.queue_nanos - timings.compute_nanos - timings.encode_nanos
    attributes = {
        "moesaic.layer": frame.layer,
        "moesaic.rows": frame.num_rows,
        "moesaic.pairs": len(frame.pair_rows),
        "moesaic.bytes": job.num_bytes,
        "moesaic.decode_nanos": timings.decode_nanos,
        "moesaic.queue_nanos": timings.queue_nanos,
        "moesaic.compute_nanos": timings.compute_nanos,
        "moesaic.encode_nanos": timings.encode_nanos,
        "moesaic.batch_frames": answer.batch_frames,
        "moesaic.failed_pairs": sum(len(failure.pairs) for failure in answer.failures),
    }
    span = _tracer.start_span(COMPUTE_SPAN, context, kind=SpanKind.SERVER, attributes=attributes, start_time=began)
    span.end(ended)
