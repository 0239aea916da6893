import numpy as np
import pytest

from services.router.load.recorder import RoutingRecorder
from services.router.load.recording import DROPPED_ID

LAYERS, EXPERTS, TOP_K = 2, 8, 2
STEP_BYTES = LAYERS * TOP_K * 2  # of one row


@pytest.fixture
def recorder() -> RoutingRecorder:
    return RoutingRecorder(LAYERS, EXPERTS, TOP_K, max_bytes=3 * STEP_BYTES)


def note_step(recorder: RoutingRecorder, *experts: int, lane: int = 0) -> None:
    for layer in range(LAYERS):
        recorder.note(lane, layer, np.array(experts), is_decode=True)


def test_steps_are_taken_as_they_passed(recorder: RoutingRecorder) -> None:
    recorder.note(0, 0, np.array([1, 2, 3, -1]), is_decode=False)
    recorder.note(0, 1, np.array([4, 5, 6, 7]), is_decode=False)
    note_step(recorder, 0, 1)
    recording = recorder.take("law")
    assert (recording.topic, recording.num_experts) == ("law", EXPERTS)
    assert recording.rows.tolist() == [2, 1]
    assert recording.is_decode.tolist() == [False, True]
    assert recording.step(0).tolist() == [[[1, 2], [3, DROPPED_ID]], [[4, 5], [6, 7]]]


def test_what_is_noted_is_copied(recorder: RoutingRecorder) -> None:
    experts = np.array([1, 2])
    recorder.note(0, 0, experts, is_decode=True)
    recorder.note(0, 1, experts, is_decode=True)
    experts[:] = 7
    assert recorder.take("").step(0)[0].tolist() == [[1, 2]]


def test_steps_of_lanes_may_alternate(recorder: RoutingRecorder) -> None:
    for layer in range(LAYERS):
        recorder.note(0, layer, np.array([0, 1]), is_decode=True)
        recorder.note(1, layer, np.array([2, 3]), is_decode=True)
    recording = recorder.take("")
    assert [recording.step(step)[1].tolist() for step in range(2)] == [[[0, 1]], [[2, 3]]]


def test_a_step_that_began_before_the_recorder_is_left_out(recorder: RoutingRecorder) -> None:
    recorder.note(0, 1, np.array([0, 1]), is_decode=True)
    note_step(recorder, 2, 3)
    assert recorder.take("").rows.tolist() == [1]


def test_a_step_that_was_never_complete_is_missed(recorder: RoutingRecorder) -> None:
    recorder.note(0, 0, np.array([0, 1]), is_decode=True)
    note_step(recorder, 2, 3)
    assert recorder.num_missed == 1
    assert recorder.take("").step(0)[0].tolist() == [[2, 3]]


def test_beyond_its_limit_steps_are_missed_until_there_is_room(recorder: RoutingRecorder) -> None:
    for expert in range(5):
        note_step(recorder, expert, 7)
    assert (recorder.num_steps, recorder.num_missed) == (3, 2)
    assert recorder.num_bytes == 3 * STEP_BYTES
    assert recorder.take("").experts[0, :, 0].tolist() == [0, 1, 2]
    note_step(recorder, 5, 7)
    assert (recorder.num_steps, recorder.num_bytes) == (1, STEP_BYTES)


def test_taken_with_nothing_there_it_is_a_recording_without_steps(
    recorder: RoutingRecorder,
) -> None:
    recording = recorder.take("")
    assert recording.num_steps == 0
    assert recording.num_layers == LAYERS
