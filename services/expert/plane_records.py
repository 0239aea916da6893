"""What the native plane counted and noted, as metrics and spans."""

from collections.abc import Iterable

from services.expert import metrics, spans
from services.expert.spans import FrameRecord
from services.wire.outcomes import Timings

# layer, frames, active experts, nanoseconds
BatchFields = tuple[int, int, int, int]
# As FrameRecord has them, up to the timings.
FrameFields = tuple[str, int, int, int, int, int, int, tuple[int, int, int, int]]


def record(batches: Iterable[BatchFields], frames: Iterable[FrameFields]) -> None:
    """Record batches that were drawn at random, and frames of sampled steps."""
    for layer, num_frames, num_active, nanos in batches:
        metrics.record_drawn_batch(layer, num_frames, num_active, nanos)
    for frame in frames:
        spans.record(FrameRecord(*frame[:7], Timings(*frame[7])))
