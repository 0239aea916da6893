"""Routers and expert services understand one another whichever of the two speaks by gRPC's library
and which by ours: the same answers, refusals and ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch

from services.router.peers.frame_lost import FrameLost
from services.router.peers.stream import ExpertStream, TimedReply
from services.router.peers.transport import Transport
from services.wire.errors import InvalidRequest
from services.wire.frames import encode_frame
from services.wire.outcomes import FrameError
from tests.checkpoints import save_tiny
from tests.expert.expert_client import Client, expert_service
from tests.router.behaviours import behaviour_of
from tests.router.transports import NATIVE, transport_to

pytestmark = NATIVE

Said: TypeAlias = tuple[bytes, FrameError | None, int]
PAIRS = [(ours, theirs) for ours in ("gRPC", "native") for theirs in ("gRPC", "native")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("olmoe", tmp_path_factory.mktemp("olmoe"))


@asynccontextmanager
async def connected(client: Client, ours: str, theirs: str) -> AsyncIterator[Transport]:
    """A transport of our kind to the service's port of their kind."""
    port = client.port if theirs == "gRPC" else client.parts.plane.port
    if not port:
        pytest.skip("the service has no native streams here")
    async with transport_to(port, ours) as transport:
        yield transport


@asynccontextmanager
async def streaming(
    transport: Transport,
) -> AsyncIterator[tuple[ExpertStream, "asyncio.Task[None]"]]:
    """A stream over it that is up, and the task that keeps it."""
    is_up = asyncio.Event()
    stream = ExpertStream("a:1", lambda: transport, behaviour_of("a:1", 30.0), is_up.set)
    running = asyncio.create_task(stream.run())
    await is_up.wait()
    try:
        yield stream, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def frame_of(num_rows: int, hidden_size: int, *, layer: int = 1) -> Callable[[int, int], bytes]:
    """What writes a frame of that many rows, each for two experts, whatever its number."""
    rng = np.random.default_rng(num_rows)
    rows = torch.from_numpy(rng.standard_normal((num_rows, hidden_size), np.float32))

    def encode(frame_id: int, remaining_nanos: int) -> bytes:
        return encode_frame(
            frame_id=frame_id,
            layer=layer,
            rows=rows,
            pair_rows=np.repeat(np.arange(num_rows, dtype=np.uint32), 2),
            pair_experts=np.tile(np.arange(2, dtype=np.uint32), num_rows),
            remaining_nanos=remaining_nanos,
            traceparent="",
            requests=(1,),
        )

    return encode


def said(answer: TimedReply) -> Said:
    """What a reply says, but for what it measured."""
    reply = answer.reply
    return bytes(reply.rows_bytes), reply.error, len(reply.failures)


async def answers_of(client: Client, ours: str, theirs: str) -> list[Said]:
    """To frames of several sizes, the last two of which are to be refused.

    They are sent one after the other: what is computed beside a frame may round it otherwise.
    """
    width = client.parts.checkpoint.hidden_size
    frames = [(frame_of(num_rows, width), num_rows) for num_rows in (1, 3, 40, 1500)]
    frames += [(frame_of(2, width + 1), 2), (frame_of(2, width, layer=77), 2)]
    async with connected(client, ours, theirs) as transport, streaming(transport) as (stream, _):
        return [said(await stream.send(encode, 2 * num_rows, 2)) for encode, num_rows in frames]


async def test_answers_have_the_same_bits_and_refusals_the_same_words(model: Path) -> None:
    async with expert_service(model, preload="all") as client:
        first, *others = [await answers_of(client, *pair) for pair in PAIRS]
    assert others == [first] * (len(PAIRS) - 1)
    *computed, wide, elsewhere = first
    assert all(len(rows) > 0 for rows, _, _ in computed)
    assert wide[1] is not None and elsewhere[1] is not None


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_a_message_that_is_none_ends_the_stream_as_the_same_error(
    model: Path, pair: tuple[str, str]
) -> None:
    async with expert_service(model) as client, connected(client, *pair) as transport:
        await transport.send(b"\xff")
        with pytest.raises(InvalidRequest, match="the bytes are no DispatchRequest"):
            await transport.deliver(lambda *_: None)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_a_service_that_stops_answers_what_it_has_and_ends_the_streams(
    model: Path, pair: tuple[str, str]
) -> None:
    async with expert_service(model, preload="all") as client:
        width = client.parts.checkpoint.hidden_size
        connecting = connected(client, *pair)
        streams = streaming(await connecting.__aenter__())
        stream, running = await streams.__aenter__()
        assert (await stream.send(frame_of(3, width), 6, 2)).reply.error is None
    await asyncio.wait([running])
    with pytest.raises(FrameLost, match="is not connected"):
        await stream.send(frame_of(3, width), 6, 2)
    await streams.__aexit__(None, None, None)
    await connecting.__aexit__(None, None, None)
