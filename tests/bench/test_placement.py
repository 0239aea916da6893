"""The bench of placements itself: hand-made routing, and the shipped model's on a few tokens."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.placement import planner as placement_planner
from bench.placement import recording as placement_recording
from bench.placement.__main__ import REPLAY, measure
from bench.placement.cluster import BALANCED, CACHED, EPLB, EVEN, READ, Cluster, Shape
from bench.placement.drift import Drift, bytes_per_point, drifts
from bench.placement.planner import CHANGED, FROM_EVEN, UNCHANGED, skewed_load, timings
from bench.placement.recording import given, recorded, recordings
from bench.placement.replay import computed, judge
from bench.placement.text import TOPICS, WINDOW, Text, windows_of
from bench.placement.traffic import DECODE_BATCH, decoded, halves, mixed, traffics
from services.router.load.recording import Recording, joined
from services.runtime.embedded_model import EMBEDDED_MODEL

LAYERS, EXPERTS, TOP_K = 2, 8, 2
SHAPE = Shape(LAYERS, EXPERTS, num_services=2, num_slots=EXPERTS)


def topic(name: str, favourite: int, num_windows: int = 2) -> Recording:
    """Every token takes the favourite, and one at random."""
    others = np.random.default_rng(favourite).integers(1, EXPERTS, (LAYERS, num_windows * WINDOW))
    experts = np.stack(
        [np.full_like(others, favourite), (favourite + others) % EXPERTS], axis=-1
    ).astype(np.uint16)
    return Recording(
        name,
        EXPERTS,
        experts,
        np.full(num_windows, WINDOW, dtype=np.int64),
        np.zeros(num_windows, dtype=bool),
    )


def numbered(num_windows: int) -> Recording:
    """One layer in which a token's two experts are its window and its position, as far as they fit
    in ids.
    """
    windows, positions = np.divmod(np.arange(num_windows * WINDOW), WINDOW)
    experts = np.stack([windows, positions], axis=-1)[None].astype(np.uint16)
    return Recording(
        "", WINDOW, experts, np.full(num_windows, WINDOW), np.zeros(num_windows, dtype=bool)
    )


def test_the_text_to_judge_on_is_not_the_text_to_plan_by() -> None:
    first, second = halves(numbered(4))
    assert set(first.experts[0, :, 0]) == {0, 1}
    assert set(second.experts[0, :, 0]) == {2, 3}


def test_a_mixed_step_has_as_many_tokens_of_each_topic() -> None:
    parts = [topic("a", 0), topic("b", 5)]
    whole = mixed(parts)
    assert whole.rows.tolist() == [WINDOW] * 4
    for step in range(4):
        favourites = whole.step(step)[:, :, 0]
        assert np.bincount(favourites[0], minlength=EXPERTS)[[0, 5]].tolist() == [WINDOW // 2] * 2
    assert (whole.counts().sum(axis=0) == sum(part.counts().sum(axis=0) for part in parts)).all()


def test_topics_that_do_not_share_a_step_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="do not share"):
        mixed([topic("a", 0, num_windows=1), topic("b", 1, num_windows=2)])


def test_a_step_of_decode_has_one_position_of_each_sequence() -> None:
    steps = decoded(numbered(6), batch=3)
    assert steps.rows.tolist() == [3] * (2 * WINDOW)
    assert steps.is_decode.all()
    # Two batches; the sequences of each are two windows apart.
    for number, (batch, position) in enumerate([(b, p) for b in range(2) for p in range(WINDOW)]):
        assert steps.step(number)[0].tolist() == [[batch + 2 * it, position] for it in range(3)]


def test_a_batch_of_joined_topics_has_sequences_of_all() -> None:
    parts = [topic("a", 0, num_windows=4), topic("b", 5, num_windows=4)]
    steps = decoded(joined(parts), batch=4)
    assert np.bincount(steps.step(0)[0, :, 0], minlength=EXPERTS)[[0, 5]].tolist() == [2, 2]


def test_what_services_compute_is_what_the_gate_chose_and_where_it_is_hosted() -> None:
    load = topic("a", 0).load()
    counts = topic("a", 0).counts()
    for strategy in (EVEN, EPLB, BALANCED):
        shape = Shape(LAYERS, EXPERTS, num_services=2, num_slots=12)
        cluster = Cluster.even(shape, CACHED).planned(strategy, load).cluster
        pairs = computed(cluster, counts)
        assert (pairs.sum(axis=2) == counts).all()
        assert not pairs[:, ~cluster.hosting].any()


def test_a_placement_is_judged_as_reckoned_by_hand() -> None:
    cluster = Cluster.even(Shape(1, 4, num_services=2, num_slots=4), READ)
    mine, others = (np.flatnonzero(row).tolist() for row in cluster.hosting[0])
    # Three pairs of two experts of one service, one pair of one of the other's.
    experts = np.array([[[mine[0], mine[1]], [mine[0], others[0]]]], dtype=np.uint16)
    found = judge(cluster, Recording("", 4, experts, np.array([2]), np.array([False])))
    assert found.imbalance == pytest.approx(0.5)  # 3 pairs against 2
    assert found.active_excess == 1.0  # 2 of 3, and half of 3 is 2
    assert found.time_excess == pytest.approx((2 + 2 + 0.15) / (2 + (3 + 0.2) / 2) - 1)


def test_a_plan_that_is_not_made_moves_nothing() -> None:
    start = Cluster.even(SHAPE, CACHED)
    planned = start.planned(EVEN, topic("a", 0).load())
    assert planned.num_loads == 0
    assert (planned.cluster.hosting == start.hosting).all()
    assert (start.hosting.sum(axis=1) == 1).all()
    assert start.num_replicas == LAYERS * EXPERTS


@pytest.mark.parametrize("strategy", [EPLB, BALANCED])
def test_loads_are_what_is_hosted_and_was_not(strategy: str) -> None:
    start = Cluster.even(Shape(LAYERS, EXPERTS, num_services=2, num_slots=12), CACHED)
    planned = start.planned(strategy, topic("a", 0).load())
    assert planned.num_loads == (planned.cluster.hosting & ~start.hosting).sum() > 0


def test_drifts_go_through_all_topics_and_back_to_the_first() -> None:
    topics = [topic("a", 0), topic("b", 5), topic("c", 2)]
    start = Cluster.even(Shape(LAYERS, EXPERTS, num_services=2, num_slots=12), CACHED)
    found = drifts(start, EPLB, topics)
    assert [drift.topic for drift in found] == ["b", "c", "a"]
    assert all(drift.after < drift.before for drift in found)


def test_bytes_are_counted_by_the_hundredth_of_imbalance_removed() -> None:
    found = [
        Drift("a", before=0.5, after=0.25, num_loads=3),
        Drift("b", before=0.25, after=0.25, num_loads=2),
    ]
    assert bytes_per_point(found, expert_bytes=100) == pytest.approx(20)
    assert (
        bytes_per_point([Drift("a", before=0.1, after=0.2, num_loads=1)], expert_bytes=100) is None
    )


def test_a_skewed_load_has_all_pairs_of_a_step() -> None:
    load = skewed_load(SHAPE, seed=3)
    assert load.tokens.sum(axis=1) == pytest.approx([512 * 8] * LAYERS)
    assert ((load.active > 0) & (load.active <= 1)).all()


def test_plans_are_timed_from_an_even_placement_and_from_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement_planner, "LARGE", SHAPE)
    rounds: list[None] = []
    found = timings(EPLB, 2, lambda: rounds.append(None))
    assert list(found) == [FROM_EVEN, UNCHANGED, CHANGED]
    assert len(rounds) == len(found[FROM_EVEN]) == 2
    assert found[FROM_EVEN][0].num_loads > found[UNCHANGED][0].num_loads == 0


def test_what_is_recorded_is_what_transformers_gates_choose() -> None:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL).eval()
    tokens = np.random.default_rng(0).integers(4, 4096, (10, 16))  # more windows than pass at once
    with torch.no_grad():
        found = recorded(model, Text("noise", tokens))
        logits = [
            model(row[None], use_cache=False, output_router_logits=True).router_logits
            for row in torch.from_numpy(tokens)
        ]
    assert found.rows.tolist() == [16] * 10
    for layer in range(found.num_layers):
        chosen = (
            torch.cat([by_layer[layer] for by_layer in logits])
            .float()
            .topk(2)
            .indices.sort(-1)
            .values
        )
        agreeing = (np.sort(found.experts[layer], axis=-1) == chosen.numpy()).all(axis=-1)
        assert (
            agreeing.mean() > 0.95
        )  # in bfloat16, alone and in a batch, a near tie may fall either way


def test_a_topic_with_too_little_text_is_refused() -> None:
    tokenizer = Tokenizer.from_file(str(EMBEDDED_MODEL / "tokenizer.json"))
    with pytest.raises(BenchFailed, match="odes has 6 held-out tokens"):
        windows_of(tokenizer, "odes", ["the sea", "the sea"], num_windows=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings of all topics, as an earlier run leaves them."""
    monkeypatch.setattr(placement_recording, "FOLDER", tmp_path)
    for number, name in enumerate(TOPICS):
        topic(name, number % EXPERTS, num_windows=2 * DECODE_BATCH).write(tmp_path / f"{name}.npz")
    return tmp_path


def test_what_was_recorded_is_read_again(folder: Path) -> None:
    assert [recording.topic for recording in recordings(Stages())] == list(TOPICS)


def test_recordings_of_a_router_are_cut_into_windows_of_tokens_as_they_came(tmp_path: Path) -> None:
    served = topic("chat", 3, num_windows=2 * DECODE_BATCH + 1).regrouped(
        48
    )  # not whole steps of a window
    served.write(tmp_path / "chat.npz")
    (found,) = given([tmp_path / "chat.npz"])
    assert found.topic == "chat"
    assert found.rows.tolist() == [WINDOW] * (2 * DECODE_BATCH)
    assert (found.experts == served.experts[:, : found.experts.shape[1]]).all()
    assert all(
        seen.num_steps for traffic in traffics([found]) for case in traffic.cases for seen in case
    )


def test_recordings_that_do_not_suffice_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.npz" for number in range(3)]
    for path in paths:
        topic("short", 1, num_windows=2 * DECODE_BATCH - 1).write(path)
    with pytest.raises(BenchFailed, match="needs 16384 tokens"):
        given(paths[:1])
    with pytest.raises(BenchFailed, match="3 recordings do not share"):
        given(paths)
    with pytest.raises(BenchFailed, match="No such file"):
        given([tmp_path / "nowhere.npz"])


def test_every_traffic_has_something_to_plan_by_and_to_judge_on(folder: Path) -> None:
    for traffic in traffics(recordings(Stages())):
        for seen, unseen in traffic.cases:
            assert seen.num_steps == unseen.num_steps > 0


async def test_the_bench_has_a_row_for_every_strategy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement_planner, "LARGE", SHAPE)
    monkeypatch.setattr("bench.placement.__main__.DRIFT_SLOTS", (12,))
    options = Namespace(
        quick=True, services=(2,), slots=(8, 12), only=REPLAY, recording=None, model=EMBEDDED_MODEL
    )
    report = await measure(options, Stages())
    prefill, decode, drift, plans = report.tables
    for table in (prefill, decode):
        whose = [(row[1], row[2], row[3]) for row in table.rows]
        by_slots = [(8, (EVEN, EPLB, BALANCED)), (12, (EPLB, BALANCED))]
        expected = [
            (n, costs, name)
            for n, names in by_slots
            for costs in ("cached", "read")
            for name in names
        ]
        assert whose == expected
    assert [row[0] for row in drift.rows] == [EPLB, BALANCED]
    assert len(plans.rows) == 6
