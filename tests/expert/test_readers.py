"""Experts are read side by side, but one after the other into one slot; some with low priority."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
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
