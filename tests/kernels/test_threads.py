"""Kernels on several threads: the same bits as on one, and no thread in anybody's way."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from services import kernels
from services.kernels import (
    AttentionLayer,
    AttentionWeights,
    Between,
    CachedLayer,
    CachedRows,
    Choice,
    Gate,
    GatedExperts,
    Norm,
)
from tests.kernels.numbers import DTYPES, random
from tests.kernels.test_combine import replies_of

Call = Callable[[torch.dtype], list[torch.Tensor]]

# Enough numbers that threads are taken, and no size that they divide.
HIDDEN, WIDTH, HEADS, KEY_HEADS, SLOTS = 516, 34, 9, 3, 420
NUM_EXPERTS, INTERMEDIATE = 70, 129


@pytest.fixture(autouse=True)
def _one_thread_afterwards() -> Iterator[None]:
    yield
    kernels.set_threads(1)


def linear(dtype: torch.dtype, num_rows: int = 3, num_outputs: int = 1031) -> list[torch.Tensor]:
    rows, weight, bias = (
        random(*shape, dtype=dtype)
        for shape in ((num_rows, 517), (num_outputs, 517), (num_outputs,))
    )
    return [kernels.linear(rows, weight, bias)]


def experts(dtype: torch.dtype, num_pairs: int) -> list[torch.Tensor]:
    """More experts than are computed at once; the first has most pairs."""
    gate_up = random(NUM_EXPERTS, 2 * INTERMEDIATE, 132, dtype=dtype) * 132**-0.5
    down = random(NUM_EXPERTS, 132, INTERMEDIATE, dtype=dtype) * INTERMEDIATE**-0.5
    generator = np.random.default_rng(0)
    slots = generator.integers(0, NUM_EXPERTS, num_pairs) * generator.integers(0, 2, num_pairs)
    rows = random(9, 132, dtype=dtype)
    return [GatedExperts(gate_up, down)(rows, generator.integers(0, 9, num_pairs), slots)]


def attend(
    dtype: torch.dtype, *, sinks: bool = False, window: int | None = None
) -> list[torch.Tensor]:
    """A prompt's tokens, others by themselves, and one without keys."""
    num_keys = np.array([*range(300, 340), 1, 77, 0, *[420] * 40])
    keys, values = random(2, SLOTS, KEY_HEADS, WIDTH, dtype=dtype, seed=1)
    query = random(len(num_keys), HEADS, WIDTH, dtype=dtype)
    logits = random(HEADS, dtype=dtype) if sinks else None
    slots = np.zeros(len(num_keys), np.int64)
    return [kernels.attend(query, keys, values, slots, num_keys, 0.2, window, logits)]


def between(dtype: torch.dtype, *, num_rows: int = 5) -> list[torch.Tensor]:
    """All that lies between two layers' experts, which is also an attention layer and a gate."""
    joined = (HEADS + 2 * KEY_HEADS) * WIDTH
    attention = AttentionLayer(
        AttentionWeights(
            random(joined, HIDDEN, dtype=dtype) * HIDDEN**-0.5,
            random(joined, dtype=dtype, seed=1),
            random(HIDDEN, HEADS * WIDTH, dtype=dtype, seed=2) * HIDDEN**-0.5,
            None,
            None,
            HEADS,
            KEY_HEADS,
        ),
        WIDTH**-0.5,
    )
    gate = Gate(random(NUM_EXPERTS, HIDDEN, dtype=dtype), None, Choice(4, True, True, dtype))
    norm = Norm(random(HIDDEN, dtype=dtype, seed=3), 1e-6)
    index = np.arange(num_rows)
    angles = random(2, num_rows, WIDTH, dtype=dtype, seed=4)
    rows = CachedRows(0 * index, 300 + index, 299 + index, *angles)
    keys, values = random(2, SLOTS, KEY_HEADS, WIDTH, dtype=dtype, seed=5)
    hidden, arrived = random(2, num_rows, HIDDEN, dtype=dtype, seed=6)
    chosen = Between(norm, attention, norm, gate)(hidden, arrived, rows, CachedLayer(keys, values))
    alone = attention(arrived, rows, CachedLayer(keys, values))
    logits, _, _ = gate(arrived)
    return [hidden, chosen.normed, chosen.weights, chosen.indices, keys, values, alone, logits]


def gate(dtype: torch.dtype) -> list[torch.Tensor]:
    choice = Choice(8, False, False, dtype)
    return list(Gate(random(130, 2049, dtype=dtype), None, choice)(random(7, 2049, dtype=dtype)))


def combine(dtype: torch.dtype) -> list[torch.Tensor]:
    rows, weights = random(61 * 4, 1100, dtype=dtype), random(61, 4, dtype=dtype)
    replies = replies_of(rows, np.random.default_rng(0).integers(-1, 3, len(rows)), 0)
    combined, _ = kernels.combine(replies, weights, 1100, dtype, dtype)
    return [combined]


def draw(dtype: torch.dtype) -> list[torch.Tensor]:
    logits = random(37, 9001, dtype=dtype).float()
    tokens = kernels.draw(list(logits), [(1.0, 50, 0.9, 0.0, row / 37) for row in range(37)])
    return [torch.tensor([-1 if token is None else token for token in tokens])]


CALLS: dict[str, Call] = {
    "linear": linear,
    "linear, many rows": partial(linear, num_rows=70),
    "experts": partial(experts, num_pairs=12),
    "experts, many pairs": partial(experts, num_pairs=9000),
    "attend": attend,
    "attend, with sinks": partial(attend, sinks=True),
    "attend, in a window": partial(attend, window=50),
    "between": between,
    "between, many rows": partial(between, num_rows=60),
    "gate": gate,
    "combine": combine,
    "draw": draw,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_bits_do_not_depend_on_the_number_of_threads(
    level: str, call: Call, dtype: torch.dtype
) -> None:
    expected = call(dtype)
    for count in (2, 3, 5):
        kernels.set_threads(count, numbers_each=1000)
        for one, other in zip(call(dtype), expected, strict=True):
            assert torch.equal(one, other)
    assert_threads_are_there()


@pytest.mark.parametrize(
    "call",
    [
        linear,
        # A part has outputs enough for its rows.
        partial(linear, num_rows=40, num_outputs=201),
        partial(experts, num_pairs=12),
        gate,
    ],
    ids=["linear", "linear, many rows", "experts", "gate"],
)
def test_nor_do_those_of_the_matrix_unit(call: Call) -> None:
    if not kernels.AVAILABLE:
        pytest.skip("the kernels were not built")
    before = kernels.level()
    kernels.set_level(kernels.EMULATED)
    try:
        expected = call(torch.bfloat16)
        kernels.set_threads(3, numbers_each=1000)
        assert all(map(torch.equal, call(torch.bfloat16), expected))
    finally:
        kernels.set_level(before)


def test_callers_at_once_get_what_each_gets_alone(level: str) -> None:
    calls = [call for name, call in CALLS.items() if "many" not in name]
    expected = [call(torch.bfloat16) for call in calls]
    kernels.set_threads(3, numbers_each=1000)
    with ThreadPoolExecutor(4) as callers:
        futures = [callers.submit(call, torch.bfloat16) for call in calls * 4]
    for future, tensors in zip(futures, expected * 4, strict=True):
        assert all(map(torch.equal, future.result(), tensors))


def test_after_a_call_that_is_refused_threads_serve_the_next(level: str) -> None:
    kernels.set_threads(2, numbers_each=1000)
    weights = torch.ones(4, 600, 300), torch.ones(4, 300, 300)
    index = np.zeros(1, np.int64)
    refused = GatedExperts(*weights)
    for _ in range(2):
        with pytest.raises(IndexError):
            refused(torch.ones(1, 300), index, index + 4)
        assert refused(torch.zeros(1, 300), index, index).count_nonzero() == 0


def test_fewer_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match=" 0 threads"):
        kernels.set_threads(0)
    assert kernels.threads() == 1


def said_by(script: str) -> str:
    """What a process of its own says, in which the script begins with two calls of a kernel: on
    `alone` and then on `shared` threads.
    """
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout


BEGIN = """
import os, sys
from pathlib import Path
import torch
from services import kernels

def threads():
    tasks = Path("/proc/self/task").iterdir()
    return [int(task.name) for task in tasks if (task / "comm").read_text() == "kernels\\n"]

def call():
    return kernels.linear(torch.ones(2, 1024), torch.ones(1024, 1024)).sum().item()

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
alone = call()
before = len(threads())
kernels.set_threads(3, numbers_each=1000)
shared = call()
"""

needs_kernels = pytest.mark.skipif(
    not kernels.AVAILABLE or sys.platform != "linux", reason="the kernels were not built"
)


@needs_kernels
def test_threads_start_when_they_are_wanted_and_stay_on_the_caller_s_cores() -> None:
    said = said_by(
        "print(before, len(threads()), {len(os.sched_getaffinity(task)) for task in threads()})"
    )
    assert said.split() == ["0", "2", "{1}"]


@needs_kernels
def test_little_work_starts_none() -> None:
    said = said_by(
        "kernels.set_threads(6); kernels.linear(torch.ones(1, 64), torch.ones(64, 64));"
        "print(len(threads()))"
    )
    assert said.split() == ["2"]


@needs_kernels
def test_a_forked_child_computes_with_threads_of_its_own() -> None:
    said = said_by(
        """
child = os.fork()
if not child:
    os._exit(0 if not threads() and call() == alone and len(threads()) == 2 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), call() == alone)
"""
    )
    assert said.split() == ["0", "True"]


@needs_kernels
def test_a_process_ends_while_its_threads_compute() -> None:
    said = said_by(
        """
import threading
def forever():
    while True:
        call()
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
print(call() == alone, flush=True)
os._exit(0)
"""
    )
    assert said.split() == ["True"]


def assert_threads_are_there() -> None:
    """Linux alone names the threads of a process."""
    if sys.platform == "linux":
        names = [task / "comm" for task in Path("/proc/self/task").iterdir()]
        assert sum(name.read_text() == "kernels\n" for name in names) >= 4
