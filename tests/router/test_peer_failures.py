"""A real expert process that is stopped, continued, killed and started again, as its
peer sees it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.model.checkpoint import Checkpoint
from services.router.peers import stream_transports
from services.router.peers.frame_lost import FrameLost
from services.router.peers.native_transport import AVAILABLE
from services.router.peers.peer import ExpertPeer
from services.router.peers.stream import ExpertStream
from services.wire.errors import Outdated
from services.wire.expert_key import ExpertKey
from tests.checkpoints import save_tiny
from tests.expert.expert_client import expert_service
from tests.router.connected_peer import connected_to
from tests.router.expert_process import expert_process, one_pair
from tests.service_process import free_port

KINDS = ["gRPC", "native"] if AVAILABLE else ["gRPC"]
FLOOR_SECONDS = 0.2
STARTING_SECONDS = 60.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("olmoe", tmp_path_factory.mktemp("olmoe"))


@pytest.fixture(scope="module")
def checkpoint(model: Path) -> Checkpoint:
    return Checkpoint.open(model)


async def answered(stream: ExpertStream, checkpoint: Checkpoint) -> None:
    """A frame is sent and answered: the service is measured then."""
    answer = await stream.send(one_pair(checkpoint.hidden_size), 1, 1)
    assert answer.reply.error is None and not answer.reply.failures


async def stop(process: asyncio.subprocess.Process) -> None:
    """Returns once none of its threads runs: one of them may be quick to answer."""
    process.send_signal(signal.SIGSTOP)
    await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


@asynccontextmanager
async def stopped_for(
    running: tuple[asyncio.subprocess.Process, int],
    checkpoint: Checkpoint,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[ExpertPeer, ExpertStream]]:
    """The process answers a frame over this transport and is stopped; continued, it is used again
    over the same streams.
    """
    process, port = running
    monkeypatch.setattr(stream_transports, "AVAILABLE", kind == "native")
    async with connected_to(checkpoint, f"127.0.0.1:{port}", FLOOR_SECONDS) as made:
        peer = made.peer
        await made.until(lambda: peer.is_usable and peer.ready, STARTING_SECONDS)
        stream = peer.streams[0]
        assert stream.transport_kind == kind
        await answered(stream, checkpoint)
        await stop(process)
        yield peer, stream
        process.send_signal(signal.SIGCONT)
        await made.until(lambda: peer.is_usable)
        assert peer.streams[0] is stream
        await answered(stream, checkpoint)


async def test_a_stopped_process_is_avoided_and_used_again_over_the_same_streams(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    async with expert_process(model, port) as process:
        for kind in KINDS:
            going = stopped_for((process, port), checkpoint, kind, monkeypatch)
            async with going as (peer, stream):
                with pytest.raises(FrameLost) as lost:
                    await stream.send(one_pair(checkpoint.hidden_size), 1, 1)
                assert lost.value.reason == "deadline"
                assert peer.is_suspect and peer.is_live


async def test_a_stopped_process_that_takes_no_more_bytes_is_used_again(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is written than lies between the two: the writer waits for the process to read on."""
    encode, port = one_pair(checkpoint.hidden_size, num_rows=8192), free_port()  # a MiB
    async with expert_process(model, port) as process:
        for kind in KINDS:
            going = stopped_for((process, port), checkpoint, kind, monkeypatch)
            async with going as (_, stream):
                for frame in [stream.send(encode, 1, 1) for _ in range(32)]:
                    with pytest.raises(FrameLost):
                        await frame


async def test_a_killed_process_is_noticed_by_its_stream_and_used_again_when_it_is_back(
    model: Path, checkpoint: Checkpoint
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    async with connected_to(checkpoint, address, frame_floor_seconds=60.0) as made:
        peer = made.peer
        async with expert_process(model, port) as process:
            await made.until(lambda: peer.is_usable and peer.ready, STARTING_SECONDS)
            await answered(peer.streams[0], checkpoint)
            await stop(process)
            frame = peer.streams[0].send(one_pair(checkpoint.hidden_size), 1, 1)
            process.kill()
            with pytest.raises(FrameLost) as lost:
                await frame
            assert lost.value.reason == "broken"
            await made.until(lambda: not peer.is_live)
            assert (peer.ready, peer.content_hashes) == ({}, {})
        async with expert_service(model, listen=address, preload="all"):
            await made.until(lambda: peer.is_usable and peer.ready)
            await answered(peer.streams[0], checkpoint)


async def test_experts_are_loaded_held_and_unloaded_and_the_peer_shows_it(
    model: Path, checkpoint: Checkpoint
) -> None:
    keys = [ExpertKey(1, 2), ExpertKey(1, 3)]
    async with (
        expert_service(model) as service,
        connected_to(checkpoint, f"127.0.0.1:{service.port}") as made,
    ):
        peer, told = made.peer, []
        await made.until(lambda: peer.is_usable)
        await peer.load(
            keys, lambda *progress: told.append(progress), operation="one", hold_seconds=60
        )
        assert told[-1] == (2, 2)
        assert set(peer.content_hashes) == set(keys)
        assert peer.content_hashes[ExpertKey(1, 2)] == checkpoint.content_hash(1, 2)
        assert {layer: ready.nonzero()[0].tolist() for layer, ready in peer.ready.items()} == {
            1: [2, 3]
        }
        with pytest.raises(Outdated):
            await peer.unload(keys[:1], operation="two")
        await peer.unload(keys[:1], operation="one")
        assert set(peer.content_hashes) == set(keys[1:])
        await peer.load(keys[1:], lambda *_: None, operation="one", hold_seconds=0)
        await peer.unload(keys[1:], operation="two")
        assert peer.ready == {}


async def test_of_two_planners_the_one_that_is_outdated_waits_for_the_newer_hosting(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        expert_service(model) as service,
        connected_to(checkpoint, f"127.0.0.1:{service.port}") as made,
    ):
        peer = made.peer
        await made.until(lambda: peer.is_usable)
        planned_with = peer.hosting.generation
        loads = (peer.load([ExpertKey(0, expert)], lambda *_: None) for expert in (1, 2))
        outcomes = await asyncio.gather(*loads, return_exceptions=True)
        assert sorted(map(type, outcomes), key=str) == sorted([type(None), Outdated], key=str)
        await peer.until_newer(planned_with)
        assert peer.hosting.generation > planned_with
