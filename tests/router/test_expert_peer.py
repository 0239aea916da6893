"""A peer outlives whatever its service does: every failure is noticed, named, and followed by a new
connection.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moesaic.v1 import common_pb2, expert_pb2
from services.model.checkpoint import Checkpoint
from services.router.peers.frame_lost import FrameLost
from services.router.peers.patience import PATIENCE, Patience
from services.router.peers.peer import ExpertPeer
from services.wire.errors import Unavailable
from services.wire.expert_key import ExpertKey
from tests.checkpoints import save_tiny
from tests.router.connected_peer import Connected, connected_to
from tests.router.scripted_service import ScriptedService, expected_of, served
from tests.router.transports import TRANSPORTS

FLOAT32, BFLOAT16 = common_pb2.ELEMENT_TYPE_FLOAT32, common_pb2.ELEMENT_TYPE_BFLOAT16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(save_tiny("olmoe", Path(tmp_path_factory.mktemp("models")) / "olmoe"))


@pytest.fixture(params=TRANSPORTS)
def service(checkpoint: Checkpoint, request: pytest.FixtureRequest) -> ScriptedService:
    """One whose streams are carried by either transport."""
    return ScriptedService(checkpoint, has_dispatch_port=request.param == "native")


@asynccontextmanager
async def connected(
    checkpoint: Checkpoint,
    service: ScriptedService,
    frame_floor_seconds: float = 5.0,
    patience: Patience = PATIENCE,
    **wanted: Any,
) -> AsyncIterator[Connected]:
    async with (
        served(service) as address,
        connected_to(checkpoint, address, frame_floor_seconds, patience, **wanted) as made,
    ):
        yield made


async def test_a_stream_that_the_service_cancels_is_opened_again(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    service.cancels_first_stream = True
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.is_live and service.num_streams == 2)


async def test_a_service_that_leaves_a_frame_unanswered_is_suspect_until_it_answers_a_probe(
    checkpoint: Checkpoint, service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "services.router")
    async with connected(checkpoint, service, frame_floor_seconds=0.002) as made:
        await made.until(lambda: made.peer.is_usable)
        peer, stream = made.peer, made.peer.streams[0]
        with pytest.raises(FrameLost, match="did not answer a frame within 50 ms") as lost:
            await stream.send(lambda *_: b"", 1, 1)
        assert lost.value.reason == "deadline"
        assert peer.is_suspect and peer.is_live and not peer.is_usable
        with pytest.raises(FrameLost, match="is suspect"):
            await stream.send(lambda *_: b"", 1, 1)
        await made.until(lambda: made.peer.is_usable)
        assert peer.streams[0] is stream and stream.is_up
    said = [record.getMessage() for record in caplog.records]
    assert f"expert service {peer.address} is suspect and avoided: {lost.value}" in said
    assert any(
        line.startswith(f"expert service {peer.address} answers again, after ") for line in said
    )


async def test_a_service_is_used_when_a_frame_of_the_router_s_own_came_back(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.is_usable)
        assert not service.trials, "it hosts nothing"
        service.host((1, 2), (2, 0))
        await made.until(lambda: bool(made.peer.ready) and made.peer.is_usable)
    (trial,) = service.trials
    assert (trial.layer, trial.pair_experts.tolist(), trial.requests) == (1, [2], ())


async def test_a_service_that_computes_nothing_is_never_used(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    service.computes = False
    service.host((1, 2))
    async with connected(checkpoint, service, frame_floor_seconds=0.002) as made:
        await made.until(lambda: made.peer.trust.is_quarantined)
        assert made.peer.is_live and made.peer.is_suspect and not made.peer.is_usable
        assert "did not answer a frame within 50 ms" in made.peer.trust.why


async def test_a_service_that_left_a_frame_unanswered_is_tried_before_it_is_used(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    service.host((1, 2))
    async with connected(checkpoint, service, frame_floor_seconds=0.002) as made:
        await made.until(lambda: made.peer.is_usable)
        service.computes = False
        with pytest.raises(FrameLost):
            await made.peer.streams[0].send(lambda *_: b"", 1, 1)
        await made.until(lambda: made.peer.trust.is_quarantined)
        assert len(service.trials) == 2


async def test_a_hosting_that_cannot_be_read_is_asked_for_again(
    checkpoint: Checkpoint, service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    service.num_damaged_hostings = 1
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.is_usable)
    assert "sent a message that cannot be read" in caplog.text


async def test_a_description_that_cannot_be_read_is_asked_for_again(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    service.num_damaged_descriptions = 2
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.is_usable)


async def test_a_peer_outlives_what_nobody_foresaw(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    service, errors = ScriptedService(checkpoint), iter([KeyError("first"), KeyError("second")])
    async with served(service) as address:
        changed = asyncio.Event()

        def change() -> None:
            for error in errors:
                raise error
            changed.set()

        peer = ExpertPeer(address, expected_of(checkpoint), 1, 5.0, change)
        running = asyncio.create_task(peer.run())
        async with asyncio.timeout(10):
            while not peer.is_usable:
                changed.clear()
                await changed.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert "KeyError: " in caplog.text


async def test_what_a_service_says_of_itself_is_kept_to_a_line(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    service.description.device = "cpu\n\x1b[2J" * 1000
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.is_usable)
        assert made.peer.description is not None
        assert made.peer.description.device.isprintable()
        assert len(made.peer.description.device) <= 200


async def test_a_service_whose_experts_take_no_memory_is_refused(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    service.description.expert_bytes[0] = 0
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.refusal is not None)
        assert "expert_bytes" in str(made.peer.refusal)


async def test_a_load_that_the_service_leaves_for_good_fails_and_ends_nothing_else(
    checkpoint: Checkpoint,
    service: ScriptedService,
) -> None:
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.is_live)
        loading = asyncio.create_task(made.peer.load([ExpertKey(0, 0)], lambda *_: None))
        await service.loading.wait()
        service.end_streams()  # as a service does that drains
        with pytest.raises(Unavailable):
            await loading


async def test_a_load_without_progress_is_given_up(checkpoint: Checkpoint) -> None:
    patience = Patience(load_progress_seconds=0.05)
    async with connected(checkpoint, ScriptedService(checkpoint), patience=patience) as made:
        await made.until(lambda: made.peer.is_live)
        with pytest.raises(Unavailable, match="did not answer in time"):
            await made.peer.load([ExpertKey(0, 0)], lambda *_: None)


async def test_a_service_that_is_another_instance_than_was_described_is_asked_again(
    checkpoint: Checkpoint,
    service: ScriptedService,
) -> None:
    service.hosting.instance = "second"
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.description is not None)
        await made.until(lambda: made.peer.description is None)
        service.description.instance = "second"
        await made.until(lambda: made.peer.is_live)


async def test_a_service_that_hosts_what_the_model_does_not_have_is_refused(
    checkpoint: Checkpoint,
    service: ScriptedService,
) -> None:
    service.host((77, 0))
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.refusal is not None)
        assert "hosts expert 0 of layer 77, which the model does not have" in str(made.peer.refusal)


async def test_a_hosting_that_goes_back_ends_the_connection_and_it_is_asked_again(
    checkpoint: Checkpoint,
    service: ScriptedService,
) -> None:
    """What was garbled on the way, or comes from nowhere, is not kept for longer than that."""
    service.hosting.generation = 1 << 40
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.is_live)
        stream = made.peer.streams[0]
        service.hosting.generation = 2
        service.changed.set()
        await made.until(lambda: made.peer.is_live and made.peer.streams[0] is not stream)
        assert made.peer.hosting.generation == 2


@pytest.mark.parametrize(
    ("wanted", "described", "refusal"),
    [
        (
            {"wire_type": BFLOAT16},
            {},
            "it takes rows in float32, the router's wire_dtype is bfloat16",
        ),
        (
            {"wire_type": BFLOAT16},
            {"frame_dtypes": [FLOAT32, 99]},
            "it takes rows in float32 or type 99, the router's",
        ),
        ({"wire_type": BFLOAT16}, {"frame_dtypes": [FLOAT32, BFLOAT16]}, None),
        ({"sums_pairs": True}, {}, "it does not sum pairs, which combine=partial needs"),
        ({"sums_pairs": True}, {"sums_pairs": True}, None),
    ],
)
async def test_a_service_that_cannot_do_what_the_options_ask_is_refused(
    checkpoint: Checkpoint,
    service: ScriptedService,
    wanted: dict[str, Any],
    described: dict[str, Any],
    refusal: str | None,
) -> None:
    """One that is older than the options says nothing of them."""
    service.description.MergeFrom(expert_pb2.ExpertServiceDescribeResponse(**described))
    async with connected(checkpoint, service, **wanted) as made:
        await made.until(lambda: made.peer.refusal is not None or made.peer.is_live)
        assert (made.peer.refusal is None) == (refusal is None)
        assert refusal is None or refusal in str(made.peer.refusal)


async def test_a_service_that_does_not_take_a_whole_row_is_refused(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    least = service.description.max_frame_bytes = 2 * checkpoint.hidden_size * 4
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.is_live)
    service.description.max_frame_bytes -= 1
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.refusal is not None)
        assert f"its max_frame_bytes is {least - 1}, and a row" in str(made.peer.refusal)


async def test_a_service_that_describes_too_few_layers_is_refused(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    del service.description.expert_bytes[1:]
    async with connected(checkpoint, service) as made:
        await made.until(lambda: made.peer.refusal is not None)
        assert "its number of expert_bytes is 1, the router's is 3" in str(made.peer.refusal)


async def test_a_service_that_never_grants_is_not_waited_for(
    checkpoint: Checkpoint, service: ScriptedService
) -> None:
    service.grants = False
    patience = Patience(answer_seconds=0.05, first_grant_seconds=0.05)
    async with connected(checkpoint, service, patience=patience) as made:
        await made.until(lambda: service.num_streams == 2)
        assert not made.peer.is_live
