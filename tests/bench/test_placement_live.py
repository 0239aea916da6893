"""The live part of the bench of placements: a router's parts over real services that simulate their
devices.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.placement import live as placement_live
from bench.placement import live_cluster as placement_live_cluster
from bench.placement.cluster import Prices
from bench.placement.live import EVENLY_ROUTED, PLANNED, UNPLANNED, measure_live
from bench.placement.live_tables import add_live
from bench.placement.live_traffic import alternating, evened, plays_of
from bench.placement.text import WINDOW
from bench.placement.traffic import DECODE, DECODE_BATCH, MIXED, PREFILL
from bench.rig.peers import decode_step, prefill_step
from bench.rig.processes import Server
from services.model.checkpoint import Checkpoint
from services.router.load.recording import Recording
from tests.checkpoints import save_tiny

NUM_WINDOWS = 2 * DECODE_BATCH


def recording(num_layers: int, num_experts: int, num_windows: int = NUM_WINDOWS) -> Recording:
    """A topic whose every token takes the first expert, and one at random."""
    others = np.random.default_rng(0).integers(1, num_experts, (num_layers, num_windows * WINDOW))
    experts = np.stack([np.zeros_like(others), others], axis=-1).astype(np.uint16)
    rows = np.full(num_windows, WINDOW, dtype=np.int64)
    return Recording("first", num_experts, experts, rows, np.zeros(num_windows, dtype=bool))


def test_steps_say_whether_they_decode() -> None:
    assert decode_step(3).is_decode
    assert not prefill_step(3).is_decode
    assert decode_step(3).num_tokens == prefill_step(3).num_tokens == 3


def test_mixed_steps_alternate_and_keep_their_experts() -> None:
    prefill, decode, mixed, lanes = (
        play.recording for play in plays_of(recording(2, 8, DECODE_BATCH), 2)
    )
    assert mixed.rows.tolist() == [WINDOW, *[DECODE_BATCH] * 4] * 2
    assert mixed.is_decode.tolist() == [False, *[True] * 4] * 2
    assert (mixed.step(5) == prefill.step(1)).all()
    assert (mixed.step(6) == decode.step(4)).all()
    assert (lanes.experts == mixed.experts).all()


def test_what_is_left_of_either_kind_is_not_mixed() -> None:
    whole = recording(1, 8, 4)
    assert alternating(whole.between(0, 3), whole.between(0, 4), 2).num_steps == 2 * 3


def test_evened_steps_give_every_expert_the_same() -> None:
    play = plays_of(recording(2, 8, DECODE_BATCH), 2)[2]
    counts = evened(play.recording).counts()
    assert (counts.sum(axis=2) == play.recording.counts().sum(axis=2)).all()
    assert (counts.min(axis=2) == counts.max(axis=2)).all()


@asynccontextmanager
async def in_this_process(serve: Any, arguments: Any) -> AsyncIterator[list[Server]]:
    """Stands for `forked`, which takes seconds."""
    async with serve(arguments[0]):
        yield []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement_live, "NUM_SERVICES", 2)
    # Pairs alone take time, so that what is measured says clearly that the first expert is hot.
    monkeypatch.setattr(placement_live, "PRICES", Prices("pairs", 0, 0, 20_000))
    monkeypatch.setattr(
        placement_live, "BALANCING", {"rebalance_seconds": 0.05, "rebalance_steps": 16}
    )
    monkeypatch.setattr(placement_live_cluster, "forked", in_this_process)


@pytest.mark.usefixtures("quick")
async def test_a_topic_is_planned_for_by_the_automatic_mode_and_undone(tmp_path: Path) -> None:
    model = save_tiny("olmoe", tmp_path)
    checkpoint = Checkpoint.open(model)
    topic = recording(len(checkpoint.moe_layers), checkpoint.num_experts)
    with torch.no_grad():
        shape, (it,) = await measure_live(model, [topic], Stages(), num_windows=1)
    assert it.automatic.num_loads > 0
    assert it.automatic.seconds is not None
    assert it.undoing.of(PREFILL, is_moving=True) or it.undoing.of(DECODE, is_moving=True)
    alone = {variant: lives[PREFILL].device_seconds for variant, lives in it.lives.items()}
    assert alone[EVENLY_ROUTED] <= alone[PLANNED]
    assert alone[EVENLY_ROUTED] < alone[UNPLANNED]
    for lives in it.lives.values():
        assert lives[PREFILL].num_tokens == WINDOW
        assert lives[MIXED].num_tokens == WINDOW + 4 * DECODE_BATCH
        assert lives[DECODE].seconds >= lives[DECODE].device_seconds
    report = Report("placement", "")
    add_live(report, shape, [it], expert_bytes=1000)
    throughputs, waits, automatic = report.tables
    assert [row[0] for row in throughputs.rows] == [PREFILL, DECODE, MIXED, f"{MIXED}, 2 lanes"]
    assert waits.rows[0][:3] == (DECODE, "unplanned, steady", 4)
    assert len(automatic.rows) == 1


async def test_another_models_recording_is_refused(tmp_path: Path) -> None:
    model = save_tiny("olmoe", tmp_path)
    with pytest.raises(BenchFailed, match="what was recorded not"):
        await measure_live(model, [recording(7, 64)], Stages(), num_windows=1)
