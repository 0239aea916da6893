"""Experts are read side by side, but one after the other into one slot; some with low priority."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from services.expert.bank import Bank
from services.expert.readers import BACKGROUND_NICENESS, Readers
from services.model.checkpoint import Checkpoint
from services.wire.expert_key import ExpertKey
from tests.expert.expert_client import ThreadGate

ONE, TWO = ExpertKey(0, 1), ExpertKey(1, 2)


@pytest.fixture
def checkpoint(olmoe: Path) -> Checkpoint:
    return Checkpoint.open(olmoe)


@pytest.fixture
def bank(checkpoint: Checkpoint) -> Bank:
    return Bank(checkpoint, torch.float32, torch.device("cpu"), 1 << 20)


@pytest.fixture
def readers(bank: Bank) -> Iterator[Readers]:
    made = Readers(bank)
    yield made
    made.close()


def holds(bank: Bank, checkpoint: Checkpoint, slot: int, key: ExpertKey) -> bool:
    weights = checkpoint.read_expert(*key)
    return all(
        torch.equal(parameter[slot], weights[name])
        for name, parameter in bank.pool.named_parameters()
    )


async def test_a_slot_that_is_still_written_to_is_read_into_afterwards(
    bank: Bank, readers: Readers, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = ThreadGate(monkeypatch, Bank, "fill", 1)
    given_up = await readers.begin(ONE, 3)
    await gate.reached.wait()
    given_up.cancel()
    beginning = asyncio.create_task(readers.begin(TWO, 3))
    elsewhere = await readers.begin(ONE, 4)
    assert await elsewhere == checkpoint.content_hash(*ONE)
    assert not beginning.done()
    gate.open()
    assert await (await beginning) == checkpoint.content_hash(*TWO)
    assert holds(bank, checkpoint, 3, TWO)
    assert holds(bank, checkpoint, 4, ONE)


async def test_a_slot_that_was_cleared_is_filled_again(
    bank: Bank, readers: Readers, checkpoint: Checkpoint
) -> None:
    await (await readers.begin(ONE, 3))
    readers.clear([3])
    await (await readers.begin(TWO, 3))
    assert holds(bank, checkpoint, 3, TWO)


async def test_a_slot_that_was_cleared_waits_for_no_read_that_nobody_waits_for(
    bank: Bank, readers: Readers, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await readers.begin(ONE, 3))
    gate = ThreadGate(monkeypatch, Bank, "fill", 1)
    in_background = await readers.begin(ONE, 4, in_background=True)
    await gate.reached.wait()
    readers.clear([3])
    async with asyncio.timeout(10):
        await (await readers.begin(TWO, 3))
    assert holds(bank, checkpoint, 3, TWO)
    gate.open()
    await in_background


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="niceness is a thread's on Linux")
async def test_what_nobody_waits_for_is_read_with_low_priority(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def niceness(bank: Bank, slot: int, layer: int, expert: int) -> bytes:
        return bytes([os.getpriority(os.PRIO_PROCESS, threading.get_native_id())])

    monkeypatch.setattr(Bank, "fill", niceness)
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    background = await (await readers.begin(ONE, 0, in_background=True))
    assert background[0] == min(19, usual + BACKGROUND_NICENESS)
    assert (await (await readers.begin(ONE, 0)))[0] == usual


async def test_slots_are_settled_once_nothing_is_read_and_hold_what_they_held(
    bank: Bank, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled, done = list[int](), asyncio.Event()
    loop, settle = asyncio.get_running_loop(), Bank.settle

    def noted(bank: Bank, slot: int, is_wanted: Callable[[], bool]) -> bool:
        is_settled = settle(bank, slot, is_wanted)
        settled.append(slot)
        if len(settled) == 2:
            loop.call_soon_threadsafe(done.set)
        return is_settled

    monkeypatch.setattr(Bank, "settle", noted)
    readers = Readers(bank, settle_seconds=0.01)
    try:
        await (await readers.begin(ONE, 3))
        await (await readers.begin(TWO, 4))
        async with asyncio.timeout(10):
            await done.wait()
    finally:
        readers.close()
    assert sorted(settled) == [3, 4]
    assert holds(bank, checkpoint, 3, ONE)
    assert holds(bank, checkpoint, 4, TWO)


async def test_a_slot_whose_settling_was_broken_off_by_a_read_is_settled_afterwards(
    bank: Bank, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    begun, broken_off, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    results: list[tuple[int, bool]] = []

    def settle(_bank: Bank, slot: int, is_wanted: Callable[[], bool]) -> bool:
        loop.call_soon_threadsafe(begun.set)
        while not results and is_wanted():
            pass
        results.append((slot, is_wanted()))
        loop.call_soon_threadsafe(broken_off.set)
        if len(results) == 3:
            loop.call_soon_threadsafe(done.set)
        return results[-1][1]

    monkeypatch.setattr(Bank, "settle", settle)
    readers = Readers(bank, settle_seconds=0.01)
    try:
        await (await readers.begin(ONE, 3))
        async with asyncio.timeout(10):
            await begun.wait()
            gate = ThreadGate(monkeypatch, Bank, "fill", 1)
            reading = await readers.begin(TWO, 4)
            await gate.reached.wait()
            await broken_off.wait()
            gate.open()
            await reading
            await done.wait()
    finally:
        readers.close()
    assert results[0] == (3, False)
    assert sorted(results[1:]) == [(3, True), (4, True)]
