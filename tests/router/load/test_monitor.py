import pickle

import numpy as np
import pytest

from services.router.load.load import ExpertLoad
from services.router.load.monitor import MAX_NOTED_PAIRS, MAX_NOTES, NUM_BUCKETS, LoadMonitor

LAYERS, EXPERTS = 2, 4


def note_steps(monitor: LoadMonitor, *experts: int, steps: int = 1, is_decode: bool = True) -> None:
    """The same experts in every layer."""
    for _ in range(steps):
        for layer in range(LAYERS):
            monitor.note(layer, np.array(experts), is_decode=is_decode)


@pytest.fixture
def monitor() -> LoadMonitor:
    return LoadMonitor(LAYERS, EXPERTS, window_steps=16)


def test_tokens_are_pairs_in_a_mean_step_and_active_the_share_of_steps(
    monitor: LoadMonitor,
) -> None:
    monitor.note(0, np.array([0, 0, 3]), is_decode=True)
    monitor.note(1, np.array([2]), is_decode=True)
    monitor.note(0, np.array([3]), is_decode=True)
    monitor.note(1, np.array([2]), is_decode=True)
    load = monitor.load()
    assert load.tokens.tolist() == [[1.0, 0, 0, 1.0], [0, 0, 1.0, 0]]
    assert load.active.tolist() == [[0.5, 0, 0, 1.0], [0, 0, 1.0, 0]]
    assert monitor.num_steps() == 2


def test_pairs_that_are_not_computed_do_not_count(monitor: LoadMonitor) -> None:
    note_steps(monitor, -1, 1, -1)
    assert monitor.load().tokens[0].tolist() == [0, 1, 0, 0]


def test_a_step_in_which_nothing_is_computed_is_a_step(monitor: LoadMonitor) -> None:
    note_steps(monitor, 1)
    note_steps(monitor, -1)
    assert monitor.load().active[0].tolist() == [0, 0.5, 0, 0]


def test_without_steps_there_is_no_load(monitor: LoadMonitor) -> None:
    for load in (monitor.load(), monitor.smoothed_load(), monitor.load(is_decode=False)):
        assert load.tokens.shape == load.active.shape == (LAYERS, EXPERTS)
        assert not load.tokens.any()
        assert not load.active.any()
    assert monitor.num_steps() == 0


def test_steps_of_decode_are_told_from_those_that_prefill(monitor: LoadMonitor) -> None:
    note_steps(monitor, 0, steps=3)
    note_steps(monitor, 1, 1, 1, 1, is_decode=False)
    assert monitor.load(is_decode=True).tokens[0].tolist() == [1, 0, 0, 0]
    assert monitor.load(is_decode=False).tokens[0].tolist() == [0, 4, 0, 0]
    assert monitor.load().tokens[0].tolist() == [0.75, 1, 0, 0]
    assert monitor.smoothed_load(is_decode=False).tokens[0] == pytest.approx([0, 4, 0, 0])
    assert [monitor.num_steps(is_decode=kind) for kind in (True, False, None)] == [3, 1, 4]


def test_the_window_forgets_what_is_before_it(monitor: LoadMonitor) -> None:
    note_steps(monitor, 0, steps=100)
    note_steps(monitor, 1, steps=16)
    assert monitor.load().tokens[0].tolist() == [0, 1, 0, 0]
    assert 14 <= monitor.num_steps() <= 16


def test_the_window_remembers_all_but_an_eighth_of_its_steps(monitor: LoadMonitor) -> None:
    note_steps(monitor, 0, steps=100)
    note_steps(monitor, 1, steps=13)
    assert monitor.load().tokens[0, 0] > 0


def test_smoothed_a_step_weighs_half_as_much_as_one_a_window_later(monitor: LoadMonitor) -> None:
    note_steps(monitor, 0, steps=1600)
    note_steps(monitor, 1, steps=16)
    tokens = monitor.smoothed_load().tokens[0]
    assert tokens == pytest.approx([0.5, 0.5, 0, 0], abs=1e-3)


def test_smoothed_the_first_steps_count_in_full(monitor: LoadMonitor) -> None:
    note_steps(monitor, 0, 1, steps=3)
    assert monitor.smoothed_load().tokens[0] == pytest.approx([1, 1, 0, 0])


@pytest.mark.parametrize("pairs", [1, MAX_NOTED_PAIRS // 4])
def test_what_is_noted_counts_whether_it_was_asked_for_in_between_or_not(pairs: int) -> None:
    asked, unasked = (
        LoadMonitor(LAYERS, EXPERTS, window_steps=800),
        LoadMonitor(LAYERS, EXPERTS, window_steps=800),
    )
    for step in range(MAX_NOTES + 1):
        for monitor in (asked, unasked):
            monitor.note(step % LAYERS, np.full(pairs, step % EXPERTS), is_decode=step % 3 > 0)
        expected = asked.load(is_decode=True)
    for kind in (True, False):
        assert (
            asked.load(is_decode=kind).tokens.tolist()
            == unasked.load(is_decode=kind).tokens.tolist()
        )
    assert unasked.load(is_decode=True).active.tolist() == expected.active.tolist()
    assert unasked.load(is_decode=True).tokens.sum() == pytest.approx(LAYERS * pairs)


def num_bytes(monitor: LoadMonitor) -> int:
    """About what it holds: arrays as they are, and some for what is around them."""
    return len(pickle.dumps(monitor))


def test_memory_does_not_grow(monitor: LoadMonitor) -> None:
    note_steps(monitor, 0, 1, 2, steps=2)
    monitor.load()
    before = num_bytes(monitor)
    note_steps(monitor, 0, 1, 2, steps=1000)
    assert num_bytes(monitor) < before + MAX_NOTES * 300  # notes that are not counted yet
    monitor.load()
    assert num_bytes(monitor) < before + 100


def test_many_pairs_are_not_kept_for_long() -> None:
    monitor = LoadMonitor(LAYERS, EXPERTS, window_steps=8000)
    note_steps(monitor, *[0] * (MAX_NOTED_PAIRS // 2), steps=1)
    assert num_bytes(monitor) < MAX_NOTED_PAIRS


def test_a_window_is_never_shorter_than_an_eighth_less_than_asked_for() -> None:
    for window_steps in range(1, 40):
        monitor = LoadMonitor(LAYERS, EXPERTS, window_steps)
        note_steps(monitor, 0, steps=100)
        assert monitor.num_steps() >= int(window_steps * (1 - 1 / NUM_BUCKETS))


def test_a_window_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="is none"):
        LoadMonitor(LAYERS, EXPERTS, window_steps=0)


def test_a_load_of_unlike_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="both"):
        ExpertLoad(np.zeros((2, 3)), np.zeros((2, 4)))
