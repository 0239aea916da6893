"""Streams a recording of live routing part by part, so that neither the router nor a message ever
holds all of it.
"""

import asyncio
from collections.abc import AsyncGenerator

from moesaic.v1 import router_pb2
from services.router.load.recording import Recording
from services.router.load.watch import RoutingWatch
from services.wire.errors import InvalidRequest

# The router holds this much for a reader that is slow, and a message has no more: well below what
# gRPC takes.
MAX_PART_BYTES = 8 * 1024 * 1024
# The recorder is looked into so often; it tells nobody, since whoever it tells would take of the
# steps' time.
LOOK_SECONDS = 0.1


async def recorded_steps(
    watch: RoutingWatch,
    num_steps: int,
    *,
    max_part_bytes: int = MAX_PART_BYTES,
    look_seconds: float = LOOK_SECONDS,
) -> AsyncGenerator[router_pb2.RecordRoutingResponse, None]:
    """The next `num_steps` steps; the first response has none yet and says that they are being
    recorded.

    Recording ends with the generator. Raises InvalidRequest where no steps are asked for, and
    Overloaded while another recording is under way.
    """
    if num_steps < 1:
        raise InvalidRequest("num_steps is 0; it must be at least 1")
    recorder = watch.record(max_part_bytes)
    try:
        yield _response(recorder.take(""), num_missed=0)
        num_left, num_missed = num_steps, 0
        while num_left:
            await asyncio.sleep(look_seconds)
            if not recorder.num_steps and recorder.num_missed == num_missed:
                continue
            part, num_missed = recorder.take(""), recorder.num_missed
            part = part.between(0, min(num_left, part.num_steps))
            num_left -= part.num_steps
            yield _response(part, num_missed=num_missed)
    finally:
        watch.stop_recording()


def _response(part: Recording, *, num_missed: int) -> router_pb2.RecordRoutingResponse:
    num_layers, _, top_k = part.experts.shape
    return router_pb2.RecordRoutingResponse(
        num_experts=part.num_experts,
        num_layers=num_layers,
        num_experts_per_token=top_k,
        rows=part.rows.tolist(),
        is_decode=part.is_decode.tolist(),
        experts=part.experts.astype("<u2").tobytes(),
        num_missed=num_missed,
    )
