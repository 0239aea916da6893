"""`moesaic routing record` against a router's calls that see routing which the tests make up."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from moesaic.v1 import placement_pb2_grpc, router_pb2
from services.cli.hosting.router import RouterFailed
from services.cli.main import USAGE_EXIT, main
from services.cli.report import Report
from services.cli.routing.record import Received, recording
from services.cli.routing.settings import RecordSettings
from services.router.load.recorded import MAX_PART_BYTES, recorded_steps
from services.router.load.recording import DROPPED_ID, Recording, read_recording
from services.router.load.watch import RoutingWatch
from services.router.placement_service import PlacementService
from services.router.running import Running
from services.wire.errors import ServingError
from tests.cli.command_line import scripted

MOE_LAYERS, NUM_EXPERTS, TOP_K = (1, 2), 16, 2
SECONDS = 30.0


def experts_of(step: int, layer: int) -> np.ndarray[Any, Any]:
    """[rows, k]: rows that tell the step and the layer, and one pair that is not computed."""
    return np.array([[step // 16, step % 16]] * (1 + step % 3) + [[layer, -1]], dtype=np.int64)


class Traffic:
    """A router's calls, and steps that it seems to serve for as long as somebody wants some."""

    def __init__(self) -> None:
        self.watch = RoutingWatch(MOE_LAYERS, NUM_EXPERTS, TOP_K, window_steps=64)
        self.address = ""
        self.num_steps = 0
        self.steps_at_once = 3

    async def flow(self) -> None:
        while True:
            for _ in range(self.steps_at_once):
                step = self.num_steps % 256
                for layer in MOE_LAYERS:
                    self.watch.note(
                        0, layer, experts_of(step, layer).ravel(), is_decode=step % 2 == 1
                    )
                self.num_steps += 1
            await asyncio.sleep(0.001)


@asynccontextmanager
async def flowing(traffic: Traffic) -> AsyncIterator[None]:
    task = asyncio.create_task(traffic.flow())
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def served(max_part_bytes: int = MAX_PART_BYTES) -> AsyncIterator[Traffic]:
    traffic, nothing = Traffic(), cast(Any, None)
    running = Running(nothing, nothing, nothing, traffic.watch, nothing)
    record = partial(recorded_steps, max_part_bytes=max_part_bytes, look_seconds=0.001)
    service = PlacementService(lambda: running, record=record)
    async with scripted(
        placement_pb2_grpc.add_PlacementServiceServicer_to_server, service
    ) as traffic.address:
        yield traffic


@pytest.fixture
async def traffic() -> AsyncIterator[Traffic]:
    async with served() as traffic:
        yield traffic


def settings(traffic: Traffic, file: Path, **flags: Any) -> RecordSettings:
    given: dict[str, Any] = {"file": file, "router": traffic.address, "timeout": SECONDS}
    return RecordSettings(**given | flags)


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def steps_in(found: Recording) -> list[int]:
    """The numbers of the steps, all of which are as they were."""
    steps = []
    for index in range(found.num_steps):
        high, low = found.step(index)[0, 0].tolist()
        step = high * 16 + low
        expected = [experts_of(step, layer).astype(np.uint16) for layer in MOE_LAYERS]
        assert found.step(index).tolist() == np.stack(expected).tolist()
        assert found.is_decode[index] == (step % 2 == 1)
        steps.append(step)
    return steps


async def test_the_next_steps_are_in_the_file_as_they_were(
    traffic: Traffic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stories.npz"
    async with flowing(traffic):
        await recording(settings(traffic, file, steps=20), Report())
    found = read_recording(file)
    steps = steps_in(found)
    assert steps == list(range(steps[0], steps[0] + 20))
    assert (found.topic, found.num_experts, found.num_layers) == (
        "stories",
        NUM_EXPERTS,
        len(MOE_LAYERS),
    )
    assert (found.experts == DROPPED_ID).sum() == 20 * len(MOE_LAYERS)
    tokens = int(found.rows.sum())
    assert (
        capsys.readouterr().err == f"recording 20 steps\nwrote {file}: 20 steps, {tokens} tokens\n"
    )
    assert files_in(tmp_path) == [file]


async def test_what_has_come_is_kept_when_it_is_broken_off(
    traffic: Traffic,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_come, take = asyncio.Event(), Received.take

    def take_and_tell(received: Received, response: router_pb2.RecordRoutingResponse) -> None:
        take(received, response)
        if response.rows:
            has_come.set()

    monkeypatch.setattr(Received, "take", take_and_tell)
    file = tmp_path / "stories.npz"
    async with flowing(traffic), asyncio.timeout(SECONDS):
        task = asyncio.create_task(
            recording(settings(traffic, file, steps=10**9, topic="tales"), Report())
        )
        await has_come.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    found = read_recording(file)
    assert found.topic == "tales"
    assert len(steps_in(found)) > 0
    assert f"wrote {file}: {found.num_steps:,} of 1,000,000,000 steps, " in capsys.readouterr().err


async def test_there_is_one_recording_at_a_time_and_it_ends_when_its_caller_leaves(
    traffic: Traffic, tmp_path: Path
) -> None:
    async with grpc.aio.insecure_channel(traffic.address) as channel:
        request = router_pb2.RecordRoutingRequest(num_steps=1)
        call = placement_pb2_grpc.PlacementServiceStub(channel).RecordRouting(request)
        begun = await call.read()
        assert (begun.num_experts, begun.num_layers, list(begun.rows)) == (
            NUM_EXPERTS,
            len(MOE_LAYERS),
            [],
        )
        with pytest.raises(
            ServingError, match="RESOURCE_EXHAUSTED: the routing is being recorded already"
        ):
            await recording(settings(traffic, tmp_path / "two.npz"), Report())
    async with flowing(traffic), asyncio.timeout(SECONDS):
        while not await is_recorded(settings(traffic, tmp_path / "three.npz", steps=5)):
            pass  # the router has yet to learn that the other one left
    assert files_in(tmp_path) == [tmp_path / "three.npz"]


async def test_steps_that_come_faster_than_they_are_read_are_missed_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stories.npz"
    async with served(max_part_bytes=100) as traffic:  # three to six steps
        traffic.steps_at_once = 50
        async with flowing(traffic):
            await recording(settings(traffic, file, steps=20), Report())
    assert len(steps_in(read_recording(file))) == 20
    assert (
        " steps between them were missed: they came faster than they were read\n"
        in capsys.readouterr().err
    )


async def test_a_recording_that_takes_too_long_fails_and_keeps_what_has_come(
    traffic: Traffic, tmp_path: Path
) -> None:
    file = tmp_path / "stories.npz"
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED: "):
        async with flowing(traffic):
            await recording(settings(traffic, file, steps=10**9, timeout=0.5), Report())
    assert steps_in(read_recording(file))


async def test_nothing_is_written_where_nothing_is_served(
    traffic: Traffic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stories.npz"
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED: "):
        await recording(settings(traffic, file, timeout=0.2), Report())
    assert f"no step was recorded; {file} is not written\n" in capsys.readouterr().err
    assert not file.exists()


async def test_a_file_that_cannot_be_written_is_a_failure_that_leaves_nothing(
    traffic: Traffic, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with flowing(traffic):
        with pytest.raises(ServingError, match=f"{folder} cannot be written: Is a directory"):
            await recording(settings(traffic, folder, steps=1), Report())
    assert files_in(tmp_path) == [folder]


async def test_a_recording_of_no_steps_is_refused(traffic: Traffic) -> None:
    async with grpc.aio.insecure_channel(traffic.address) as channel:
        call = placement_pb2_grpc.PlacementServiceStub(channel).RecordRouting(
            router_pb2.RecordRoutingRequest()
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert (raised.value.code(), raised.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "num_steps is 0; it must be at least 1",
    )


async def is_recorded(wanted: RecordSettings) -> bool:
    try:
        await recording(wanted, Report())
    except RouterFailed:
        return False
    return True


class Nonsense(placement_pb2_grpc.PlacementServiceServicer):
    """Streams what it is told to."""

    def __init__(self, *responses: router_pb2.RecordRoutingResponse) -> None:
        self.responses = responses

    async def RecordRouting(
        self, request: router_pb2.RecordRoutingRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[router_pb2.RecordRoutingResponse]:
        for response in self.responses:
            yield response


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "the router ended the stream after 1 of 1000 steps"),
        ({"experts": b"\0"}, "the router sent what is no recording: "),
        ({"num_experts": 3}, "the router sent what is no recording: expert 3 of 3"),
    ],
)
async def test_a_stream_that_ends_early_or_contradicts_itself_is_a_failure(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    good: dict[str, Any] = {
        "num_experts": 4,
        "num_layers": 1,
        "num_experts_per_token": 2,
        "rows": [1],
        "is_decode": [True],
        "experts": np.array([2, 3], dtype="<u2").tobytes(),
    }
    router = Nonsense(router_pb2.RecordRoutingResponse(**(good | fields)))
    async with scripted(
        placement_pb2_grpc.add_PlacementServiceServicer_to_server, router
    ) as address:
        with pytest.raises(ServingError, match=said):
            await recording(RecordSettings(file=tmp_path / "file.npz", router=address), Report())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "here.npz is there already; --overwrite replaces it"),
        (["--steps", "0"], "--steps (MOESAIC_ADMIN_STEPS): '0': it should be greater than 0"),
        (
            ["--overwrite", "--router", "nowhere:"],
            "'nowhere:': it should be host:port, and '' is no port",
        ),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_recorded(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "here.npz"
    file.write_bytes(b"dear")
    with pytest.raises(SystemExit) as exit_info:
        main(["routing", "record", str(file), *flags])
    assert exit_info.value.code == USAGE_EXIT
    assert said in capsys.readouterr().err
    assert file.read_bytes() == b"dear"


def test_a_file_in_a_folder_that_is_not_there_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["routing", "record", "/absent/file.npz"])
    assert capsys.readouterr().err == (
        "moesaic routing record: /absent/file.npz cannot be written: nothing can be written into "
        "/absent\n"
    )


def test_a_router_that_is_not_there_is_one_line_and_torch_is_not_needed(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    file = tmp_path / "file.npz"
    arguments = [
        "routing",
        "record",
        "--overwrite",
        "--router",
        f"127.0.0.1:{unused_tcp_port}",
        str(file),
    ]
    script = (
        f"import sys; from services.cli.main import main; sys.exit(main({arguments}) + ('torch' in "
        "sys.modules))"
    )
    file.write_bytes(b"dear")
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("moesaic routing record: nothing listens on ")
    assert file.read_bytes() == b"dear"
