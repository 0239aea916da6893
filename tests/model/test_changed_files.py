"""Files that are written to, cut short, replaced or put back while a process has them open."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.model.checkpoint import Checkpoint
from services.model.refusals import UnusableModel
from tests.checkpoints import save_tiny, save_unsampled

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny("olmoe", tmp_path / "served", seed=1)


@pytest.fixture
def retrained(tmp_path: Path) -> bytes:
    return (save_tiny("olmoe", tmp_path / "retrained", seed=2) / WEIGHTS).read_bytes()


def overwritten(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


def replaced(path: Path, data: bytes) -> None:
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path, data: overwritten(path, data),
        lambda path, data: overwritten(path, path.read_bytes()[:-1] + b"\x01"),
        lambda path, data: os.truncate(path, 100),
        lambda path, data: os.truncate(path, 0),
        lambda path, data: os.truncate(path, path.stat().st_size + 1),
    ],
    ids=["overwritten", "one byte", "cut short", "emptied", "longer"],
)
@pytest.mark.parametrize(
    "family", ["olmoe", "gpt_oss"]
)  # experts one by one, and cut out of one tensor
def test_what_was_written_to_since_is_not_read(
    family: str, change: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    path = save_tiny(family, tmp_path / "served", seed=1) / WEIGHTS
    data = (save_tiny(family, tmp_path / "retrained", seed=2) / WEIGHTS).read_bytes()
    checkpoint = Checkpoint.open(path.parent)
    change(path, data)

    with pytest.raises(
        UnusableModel, match=r"model\.safetensors has changed since this process opened it: put the"
    ):
        checkpoint.load_expert(1, 3)


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
def test_what_was_put_back_as_it_was_is_read_on(family: str, tmp_path: Path) -> None:
    path = save_tiny(family, tmp_path) / WEIGHTS
    checkpoint, former = Checkpoint.open(tmp_path), path.read_bytes()
    before = checkpoint.load_expert(1, 3)
    os.truncate(path, 100)
    with pytest.raises(UnusableModel):
        checkpoint.load_expert(1, 3)
    overwritten(path, former)

    assert checkpoint.load_expert(1, 3).content_hash == before.content_hash


@pytest.mark.parametrize(
    "change", [replaced, lambda path, data: path.unlink()], ids=["replaced", "removed"]
)
def test_what_was_replaced_since_is_read_as_it_was(
    change: Callable[[Path, bytes], None], folder: Path, retrained: bytes
) -> None:
    checkpoint = Checkpoint.open(folder)
    before = Checkpoint.open(folder).load_expert(1, 3)
    change(folder / WEIGHTS, retrained)

    after = checkpoint.load_expert(1, 3)
    assert after.content_hash == before.content_hash
    assert all(torch.equal(weight, before.weights[name]) for name, weight in after.weights.items())


def test_a_hash_is_of_the_bytes_that_were_loaded_whatever_was_loaded_before(
    folder: Path, retrained: bytes
) -> None:
    path = folder / WEIGHTS
    checkpoint = Checkpoint.open(folder)
    before = checkpoint.load_expert(1, 3)
    status = path.stat()
    overwritten(path, retrained)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as tools do that copy times too

    after = checkpoint.load_expert(1, 3)
    assert after.content_hash == Checkpoint.open(folder).content_hash(1, 3) != before.content_hash


@pytest.mark.parametrize("change", [overwritten, replaced])
def test_a_checkpoint_that_is_refreshed_is_that_of_the_files_as_they_are(
    change: Callable[[Path, bytes], None], folder: Path, retrained: bytes
) -> None:
    former = (folder / WEIGHTS).read_bytes()
    checkpoint, first = Checkpoint.open(folder), Checkpoint.open(folder)
    for data in (retrained, former):
        change(folder / WEIGHTS, data)
        checkpoint.refresh()
        opened = Checkpoint.open(folder)
        assert checkpoint.digest == opened.digest
        assert checkpoint.content_hash(1, 3) == opened.content_hash(1, 3)
    assert checkpoint.digest == first.digest


def test_a_checkpoint_is_not_refreshed_with_files_of_another_model(
    folder: Path, tmp_path: Path
) -> None:
    checkpoint = Checkpoint.open(folder)
    shutil.copy(save_tiny("olmoe", tmp_path / "other", intermediate_size=16) / WEIGHTS, folder)

    with pytest.raises(
        UnusableModel,
        match=r"model\.safetensors has other tensors than when this process opened it",
    ):
        checkpoint.refresh()


def test_a_digest_shows_a_change_in_any_one_tensor(tmp_path: Path) -> None:
    # One layer will do, of experts of whose tensors samples are not all.
    folder = save_unsampled(tmp_path, num_hidden_layers=1)
    tensors = load_file(folder / WEIGHTS)
    digests = {Checkpoint.open(folder).digest}
    for name, tensor in tensors.items():
        save_file(tensors | {name: tensor + 1}, folder / WEIGHTS)
        digests.add(Checkpoint.open(folder).digest)

    assert len(digests) == len(tensors) + 1


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(UnusableModel, match="it is no regular file"):
        checkpoint.refresh()
    assert checkpoint.load_expert(1, 3).weights  # which is open still
