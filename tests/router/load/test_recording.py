from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.router.load.monitor import LoadMonitor
from services.router.load.recording import DROPPED_ID, Recording, joined, read_recording
from services.wire.errors import InvalidRequest

LAYERS, EXPERTS, TOP_K = 3, 5, 2


@pytest.fixture
def recording() -> Recording:
    """Steps of 4, 1, 1 and 2 tokens; the two in the middle are of decode. Some pairs were not
    computed.
    """
    experts = np.random.default_rng(7).integers(0, EXPERTS, (LAYERS, 8, TOP_K)).astype(np.uint16)
    experts[1, 2, 0] = experts[2, 5, 1] = DROPPED_ID
    return Recording(
        "prose", EXPERTS, experts, np.array([4, 1, 1, 2]), np.array([False, True, True, False])
    )


def test_a_step_has_its_own_tokens(recording: Recording) -> None:
    assert recording.num_steps == 4
    assert [recording.step(step).shape for step in range(4)] == [
        (LAYERS, rows, TOP_K) for rows in (4, 1, 1, 2)
    ]
    assert (
        np.concatenate([recording.step(step) for step in range(4)], axis=1) == recording.experts
    ).all()


def test_a_cut_has_the_steps_between(recording: Recording) -> None:
    cut = recording.between(1, 3)
    assert cut.rows.tolist() == [1, 1]
    assert cut.is_decode.tolist() == [True, True]
    assert (cut.step(1) == recording.step(2)).all()
    assert cut.topic == "prose"


def test_regrouped_the_tokens_are_the_same_but_for_what_is_left_over(recording: Recording) -> None:
    threes = recording.regrouped(3)
    assert threes.rows.tolist() == [3, 3]
    assert (threes.experts == recording.experts[:, :6]).all()
    assert recording.between(1, 3).regrouped(2).is_decode.tolist() == [True]
    assert threes.is_decode.tolist() == [False, False]


def test_counts_are_the_pairs_of_each_step_layer_and_expert(recording: Recording) -> None:
    counts = recording.counts()
    assert counts.shape == (4, LAYERS, EXPERTS)
    for step in range(4):
        for layer in range(LAYERS):
            for expert in range(EXPERTS):
                assert counts[step, layer, expert] == (recording.step(step)[layer] == expert).sum()
    assert counts.sum() == 8 * LAYERS * TOP_K - 2


def test_its_load_is_what_a_monitor_saw(recording: Recording) -> None:
    monitor = LoadMonitor(LAYERS, EXPERTS, window_steps=8)
    for step in range(recording.num_steps):
        for layer, experts in enumerate(recording.step(step).reshape(LAYERS, -1)):
            monitor.note(
                layer,
                np.where(experts == DROPPED_ID, -1, experts.astype(np.int64)),
                is_decode=False,
            )
    assert monitor.load().tokens == pytest.approx(recording.load().tokens)
    assert monitor.load().active == pytest.approx(recording.load().active)


def test_no_steps_make_no_load(recording: Recording) -> None:
    with pytest.raises(ValueError, match="prose"):
        recording.between(2, 2).load()


def test_recordings_are_joined_in_their_order(recording: Recording) -> None:
    whole = joined([recording.between(0, 1), recording.between(1, 4)])
    assert (whole.experts == recording.experts).all()
    assert (whole.rows == recording.rows).all()
    assert (whole.is_decode == recording.is_decode).all()


def test_what_is_written_is_read(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "routing"  # the name is the caller's, nothing is added to it
    recording.write(path)
    found = read_recording(path)
    assert (found.topic, found.num_experts) == ("prose", EXPERTS)
    assert (found.experts == recording.experts).all()
    assert found.experts.dtype == np.uint16
    assert (found.rows == recording.rows).all()
    assert (found.is_decode == recording.is_decode).all()


@pytest.mark.parametrize("content", [b"", b"not a recording", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_recording_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="no recording"):
        read_recording(path)


@pytest.mark.parametrize("missing", ["format", "experts", "rows"])
def test_arrays_that_lack_one_are_no_recording(
    missing: str, recording: Recording, tmp_path: Path
) -> None:
    path = tmp_path / "routing.npz"
    recording.write(path)
    with np.load(path) as file:
        np.savez(path, **{name: file[name] for name in file.files if name != missing})
    with pytest.raises(InvalidRequest, match="no recording"):
        read_recording(path)


def test_a_single_array_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "routing.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(InvalidRequest, match="no recording"):
        read_recording(path)


def test_another_format_is_refused_by_its_number(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "routing.npz"
    recording.write(path)
    with np.load(path) as file:
        np.savez(path, **{**file, "format": np.int64(9)})
    with pytest.raises(InvalidRequest, match="format 9"):
        read_recording(path)


def test_an_absent_file_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_recording(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"rows": np.array([4, 1, 1, 3])}, "steps of 9 tokens"),
        ({"num_experts": 4}, "expert 4 of 4"),
        ({"is_decode": np.array([True])}, "takes"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    changed: dict[str, Any], why: str, recording: Recording
) -> None:
    with pytest.raises(ValueError, match=why):
        Recording(
            **{
                "topic": "prose",
                "num_experts": EXPERTS,
                "experts": recording.experts,
                "rows": recording.rows,
                "is_decode": recording.is_decode,
                **changed,
            }
        )
