"""Experts that are computed with where the page cache has them: the same bits as those that were
read, whatever is done to the files.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from services.expert.bank import Bank
from services.expert.compute import Computer, FrameWork
from services.expert.grouped import GroupedExperts
from services.expert.mapped_slots import MappedSlots
from services.expert.vacating import vacate_wanted
from services.model.checkpoint import Checkpoint
from services.model.refusals import UnusableModel
from services.runtime.file_lease import give_up_lease, take_lease
from services.wire.errors import BadState
from tests.checkpoints import save_tiny

CPU = torch.device("cpu")
KEYS = list(product(range(3), range(8)))


@pytest.fixture(autouse=True)
def leases(tmp_path: Path) -> None:
    (tmp_path / "leased").touch()
    file = os.open(tmp_path / "leased", os.O_RDONLY)
    is_leased = take_lease(file)
    os.close(file)
    if not is_leased:
        pytest.skip("files here cannot be leased")


@pytest.fixture(params=[False, True], ids=["one file", "two files"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = save_tiny("olmoe", tmp_path / "served", torch.bfloat16)
    if request.param:
        split(folder / "model.safetensors", lambda name: "down_proj" in name)
    return folder


def split(path: Path, is_second: Callable[[str], bool]) -> None:
    """Have an expert's weights in two files."""
    tensors, files = load_file(path), ("1.safetensors", "2.safetensors")
    path.unlink()
    for number, file in enumerate(files):
        part = {name: each for name, each in tensors.items() if is_second(name) is bool(number)}
        save_file(part, path.with_name(file))
    weight_map = {name: files[is_second(name)] for name in tensors}
    index = path.with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": weight_map}))


def bank_of(folder: Path, *, maps_files: bool = True) -> Bank:
    bank = Bank(
        Checkpoint.open(folder),
        torch.bfloat16,
        CPU,
        1 << 30,
        maps_files=maps_files,
        least_mapped_bytes=1,
    )
    for slot, (layer, expert) in enumerate(KEYS):
        bank.fill(slot, layer, expert)
    return bank


def mapped_of(bank: Bank) -> MappedSlots:
    assert bank.mapped is not None
    return bank.mapped


def test_a_slot_that_settles_leaves_its_file_and_keeps_its_bits(folder: Path) -> None:
    bank, read = bank_of(folder), bank_of(folder, maps_files=False)
    assert mapped_of(bank).num_mapped == len(KEYS)
    for slot in range(len(KEYS)):
        assert bank.settle(slot, lambda: True)
        ours, theirs = bank.weights(slot), read.weights(slot)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert mapped_of(bank).num_mapped == 0
    assert mapped_of(bank).wanted_files() == []


def computed(bank: Bank) -> list[torch.Tensor]:
    """By the kernel and by torch, of each expert alone and of many at once."""
    rows = torch.randn(9, 32, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    pair_rows, slots = np.arange(48) % 9, np.arange(48) % len(KEYS)
    grouped = [GroupedExperts(bank, batch_invariant=tiles) for tiles in (False, True)]
    return [
        *(experts(rows, pair_rows, slots) for experts in grouped),
        asyncio.run(by_computer(bank, FrameWork(rows, pair_rows, slots))),
    ]


async def by_computer(bank: Bank, work: FrameWork) -> torch.Tensor:
    computer = Computer(bank, threads=1, batch_invariant=False)
    try:
        return (await computer.compute([work])).rows[0]
    finally:
        computer.close()


def assert_same(bank: Bank, expected: list[torch.Tensor]) -> None:
    assert all(map(torch.equal, computed(bank), expected))


@pytest.fixture
def expected(folder: Path) -> list[torch.Tensor]:
    return computed(bank_of(folder, maps_files=False))


@pytest.fixture
def bank(folder: Path, expected: list[torch.Tensor]) -> Iterator[Bank]:
    """All of whose slots are mapped."""
    made = bank_of(folder)
    assert mapped_of(made).num_mapped == len(KEYS)
    yield made
    for slot in range(len(KEYS)):
        made.clear(slot)


def weights_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def is_kept_waiting(path: Path) -> bool:
    """Whether a writer would be."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except BlockingIOError:
        return True
    return False


def test_mapped_experts_have_the_bits_and_the_hashes_of_read_ones(
    bank: Bank, expected: list[torch.Tensor], folder: Path
) -> None:
    assert_same(bank, expected)
    checkpoint = Checkpoint.open(folder)
    for slot, key in enumerate(KEYS):
        assert bank.fill(slot, *key) == checkpoint.content_hash(*key)
        weights = checkpoint.read_expert(*key)
        assert all(torch.equal(weights[name], each) for name, each in bank.weights(slot).items())


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"\xff" * path.stat().st_size),
        lambda path: os.truncate(path, 100),
        lambda path: os.truncate(path, 0),
    ],
    ids=["overwritten", "cut short", "emptied"],
)
def test_who_writes_to_a_file_waits_until_its_experts_have_copies(
    bank: Bank, expected: list[torch.Tensor], folder: Path, change: Callable[[Path], None]
) -> None:
    mapped = mapped_of(bank)
    assert mapped.wanted_files() == []
    for path in weights_of(folder):
        if is_kept_waiting(path):
            (file,) = mapped.wanted_files()
            assert file.path == path
            mapped.vacate(file)
        assert not is_kept_waiting(path)
        change(path)
    assert mapped.num_mapped == 0
    assert_same(bank, expected)
    with pytest.raises(UnusableModel):
        bank.fill(0, *KEYS[0])


def test_files_that_are_replaced_or_removed_are_computed_with_as_they_were(
    bank: Bank, expected: list[torch.Tensor], folder: Path
) -> None:
    for path in weights_of(folder):
        path.with_suffix(".new").write_bytes(bytes(path.stat().st_size))
        path.with_suffix(".new").rename(path)
        path.unlink()
    assert mapped_of(bank).wanted_files() == []
    assert_same(bank, expected)
    assert bank.fill(0, *KEYS[1]) == bank.fill(1, *KEYS[1])


def test_two_services_may_use_the_same_pages_and_both_let_a_writer_go_on(
    bank: Bank, expected: list[torch.Tensor], folder: Path
) -> None:
    other = bank_of(folder)
    for path in weights_of(folder):
        is_kept_waiting(path)
    for each in (bank, other):
        for file in mapped_of(each).wanted_files():
            mapped_of(each).vacate(file)
    assert not any(map(is_kept_waiting, weights_of(folder)))
    for each in (bank, other):
        assert_same(each, expected)


def test_slots_that_are_cleared_keep_no_writer_waiting_and_can_be_read_into(
    bank: Bank, expected: list[torch.Tensor], folder: Path
) -> None:
    for slot in range(len(KEYS)):
        bank.clear(slot)
        assert not any(weight.any() for weight in bank.weights(slot).values())
    assert not any(map(is_kept_waiting, weights_of(folder)))
    with weights_of(folder)[0].open("r+b"):  # of which no lease can be had
        for slot, key in enumerate(KEYS):
            bank.fill(slot, *key)
    assert mapped_of(bank).num_mapped < len(KEYS)
    assert_same(bank, expected)


def test_no_more_is_mapped_than_can_be_copied_while_a_writer_waits(
    folder: Path, expected: list[torch.Tensor]
) -> None:
    bank = bank_of(folder, maps_files=True)
    for slot in range(len(KEYS)):
        bank.clear(slot)
    bank.mapped = MappedSlots(dict(bank.pool.named_parameters()), most_bytes=3 * bank.slot_bytes)
    for slot, key in enumerate(KEYS):
        bank.fill(slot, *key)
    assert bank.mapped.num_mapped == 3
    assert_same(bank, expected)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_experts_that_do_not_stand_in_files_as_they_are_computed_with_are_read(
    family: str, tmp_path: Path
) -> None:
    folder = save_tiny(family, tmp_path / "served", torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        bank = Bank(
            Checkpoint.open(folder), dtype, CPU, 1 << 30, maps_files=True, least_mapped_bytes=1
        )
        assert bank.mapped is None


async def test_a_waiting_writer_is_noticed(bank: Bank, folder: Path) -> None:
    mapped = mapped_of(bank)
    noticing = asyncio.create_task(vacate_wanted(mapped, lambda: None, poll_seconds=0.01))
    for path in weights_of(folder):
        os.close(await asyncio.to_thread(os.open, path, os.O_WRONLY))
    assert mapped.num_mapped == 0
    noticing.cancel()


async def test_a_service_whose_file_was_written_to_before_it_noticed_serves_no_more(
    bank: Bank, folder: Path
) -> None:
    path, has_stopped = weights_of(folder)[0], asyncio.Event()
    is_kept_waiting(path)
    (file,) = mapped_of(bank).wanted_files()
    give_up_lease(file.descriptor)  # as the system does after its time
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(BadState, match="was written to before its experts had copies"):
        await vacate_wanted(mapped_of(bank), has_stopped.set)
    assert has_stopped.is_set()
