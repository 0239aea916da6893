"""Hashes that are kept stand for the very content that they were computed of, or are not used."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from services.model.checkpoint import Checkpoint, ExpertWeights
from services.model.digest import ContentHash
from services.model.hash_cache import SETTLED_NANOS, HashCache
from services.model.origin import Origin
from tests.checkpoints import save_tiny

WEIGHTS = "model.safetensors"
OLD = Origin.of("old", 0, SETTLED_NANOS)
HASH = bytes(range(16))


class CountedHashes:
    """How many contents were hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num = 0
        original = ContentHash.value

        def counted(content: ContentHash) -> bytes:
            self.num += 1
            return original(content)

        monkeypatch.setattr(ContentHash, "value", counted)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> CountedHashes:
    return CountedHashes(monkeypatch)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that tests have just made were changed long ago."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NANOS)


def load(checkpoint: Checkpoint, cache: HashCache, expert: int = 3) -> tuple[ExpertWeights, bytes]:
    shapes = {"gate_up_proj": (48, 32), "down_proj": (32, 24)}
    weights = {name: torch.empty(shape, dtype=checkpoint.dtype) for name, shape in shapes.items()}
    return weights, checkpoint.load_into(weights, 1, expert, cache)


def test_a_hash_is_computed_once_for_all_processes(
    tmp_path: Path, hashed: CountedHashes, later: None
) -> None:
    folder = save_tiny("olmoe", tmp_path / "served")
    _, first = load(Checkpoint.open(folder), HashCache(tmp_path / "hashes"))
    weights, second = load(Checkpoint.open(folder), HashCache(tmp_path / "hashes"))
    assert hashed.num == 1
    checkpoint = Checkpoint.open(folder)
    assert second == first == checkpoint.content_hash(1, 3)
    expected = checkpoint.read_expert(1, 3)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def test_what_another_process_adds_is_found_without_being_opened_again(tmp_path: Path) -> None:
    one, other = HashCache(tmp_path / "hashes"), HashCache(tmp_path / "hashes")
    assert one.find(OLD) is None
    other.keep(OLD, HASH)
    assert one.find(OLD) == HASH


def test_a_read_that_took_long_does_not_make_files_old(tmp_path: Path) -> None:
    changed = 5 * SETTLED_NANOS
    origin = Origin.of("young", changed, changed + SETTLED_NANOS - 1)
    cache = HashCache(tmp_path / "hashes")
    cache.keep(origin, HASH)
    assert cache.find(origin) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.utime(path, ns=(0, 0)),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
    ],
    ids=["touched", "one byte"],
)
def test_files_of_another_state_are_hashed_anew(
    change: Callable[[Path], None], tmp_path: Path, hashed: CountedHashes, later: None
) -> None:
    folder, cache = save_tiny("olmoe", tmp_path / "served"), HashCache(tmp_path / "hashes")
    load(Checkpoint.open(folder), cache)
    change(folder / WEIGHTS)
    _, content_hash = load(Checkpoint.open(folder), cache, 3)
    assert hashed.num == 2
    assert content_hash == Checkpoint.open(folder).content_hash(1, 3)


def test_a_write_that_hides_its_time_is_seen(tmp_path: Path, later: None) -> None:
    folder, cache = save_tiny("olmoe", tmp_path / "served", seed=1), HashCache(tmp_path / "hashes")
    checkpoint, path = Checkpoint.open(folder), folder / WEIGHTS
    _, before = load(checkpoint, cache)
    status = path.stat()
    retrained = (save_tiny("olmoe", tmp_path / "retrained", seed=2) / WEIGHTS).read_bytes()
    with path.open("r+b") as file:
        file.write(retrained)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    _, after = load(checkpoint, cache)
    assert after == Checkpoint.open(folder).content_hash(1, 3) != before


def test_what_was_changed_a_moment_ago_is_not_kept(tmp_path: Path, hashed: CountedHashes) -> None:
    folder, cache = save_tiny("olmoe", tmp_path / "served"), HashCache(tmp_path / "hashes")
    load(Checkpoint.open(folder), cache)
    load(Checkpoint.open(folder), cache)
    assert hashed.num == 2


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data[:20] + b"\xff" + data[21:], lambda data: b"x" * 7],
    ids=["cut short", "a byte", "no records"],
)
def test_a_damaged_file_gives_no_hash_and_is_mended(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    file = tmp_path / "hashes"
    HashCache(file).keep(OLD, HASH)
    file.write_bytes(damage(file.read_bytes()))
    cache = HashCache(file)
    assert cache.find(OLD) is None
    cache.keep(OLD, HASH)
    assert HashCache(file).find(OLD) == HASH


def test_where_nothing_can_be_written_hashes_are_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = HashCache(tmp_path / "file" / "hashes")
    cache.keep(OLD, HASH)
    assert cache.find(OLD) == HASH


def test_experts_of_other_types_than_the_stored_one_are_converted(
    tmp_path: Path, later: None
) -> None:
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path / "served"))
    loaded = checkpoint.load_expert(1, 3, torch.bfloat16)
    expected = checkpoint.read_expert(1, 3, torch.bfloat16)
    assert loaded.content_hash == checkpoint.content_hash(1, 3)
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.weights.items())
