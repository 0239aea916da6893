"""Products of few rows by the kernels of two trees, in turn in one process: how fast they read
weights from memory.
"""

import importlib.util
import mmap
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.rounds import interleaved
from bench.harness.statistics import Spread, ratio_of, spread_of

# Far beyond what caches hold.
WEIGHT_BYTES = 128 << 20
MODULE = Path("services") / "kernels" / "_native.abi3.so"
BFLOAT16 = 1
ITEM = 2
# Widths and outputs of the 470 M model: attention's two, an expert's second one.
SHAPES = ((1024, 3072), (1024, 1024), (512, 1024))
ROWS = (1, 4, 8, 16, 64)
KINDS = {"small": mmap.MADV_NOHUGEPAGE, "huge": mmap.MADV_HUGEPAGE}


@dataclass(frozen=True)
class Products:
    """GB of weights a second by each tree, a sample for each round."""

    pages: str
    width: int
    num_outputs: int
    num_rows: int
    before: Sequence[float]
    now: Sequence[float]

    @property
    def speed_up(self) -> Spread:
        """Now over before."""
        return ratio_of(self.now, self.before)

    def cells(self) -> tuple[str | int | Spread, ...]:
        """A row of the table with `HEADINGS`."""
        shape = f"{self.width} x {self.num_outputs}"
        rates = spread_of(self.before), spread_of(self.now), self.speed_up
        return (f"{self.pages} pages, {shape}, rows {self.num_rows}", *rates)


HEADINGS = ("weights, bfloat16", "before", "now", "now ÷ before")


class Weights:
    """Random numbers in memory of one kind of page."""

    def __init__(self, advice: int, num_bytes: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = mmap.mmap(-1, num_bytes, flags=flags)
        self._memory.madvise(advice)
        numbers = np.frombuffer(self._memory, dtype=np.uint16)
        # Numbers between 1/64 and 2 with either sign.
        numbers[:] = 0x3C80 + np.random.default_rng(1).integers(0, 0x380, numbers.size)
        self.address = _address(numbers)
        self.numbers = numbers


async def measured_products(
    before: Path,
    now: Path,
    num_rounds: int,
    after_case: Callable[[], None],
    weight_bytes: int = WEIGHT_BYTES,
) -> list[Products]:
    """Products by the modules that were built in both trees, on one thread."""
    modules = {"before": _kernels_of(before), "now": _kernels_of(now)}
    found = []
    for pages, advice in KINDS.items():
        weights = Weights(advice, weight_bytes)
        for width, num_outputs in SHAPES:
            for num_rows in ROWS:
                shape = (width, num_outputs, num_rows)
                variants = {
                    name: _timed(module, weights, *shape) for name, module in modules.items()
                }
                taken = await interleaved(variants, num_rounds, after_round=_nothing)
                found.append(Products(pages, *shape, taken["before"], taken["now"]))
                after_case()
    return found


def _kernels_of(tree: Path) -> Any:
    loader = ExtensionFileLoader("_native", str(tree / MODULE))
    spec = importlib.util.spec_from_loader("_native", loader)
    assert spec is not None, "a loader was given"
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _timed(
    module: Any, weights: Weights, width: int, num_outputs: int, num_rows: int
) -> Callable[[], Awaitable[float]]:
    """One pass over weights that were not read for a while, in GB a second of the thread's time."""
    num_bytes = width * num_outputs * ITEM
    # Arithmetic takes longer with many rows, so fewer weights are enough.
    count = max(1, weights.numbers.nbytes // num_bytes // max(1, num_rows // 8))
    addresses = range(0, count * num_bytes, num_bytes)
    rows = weights.numbers[-num_rows * width :].copy()
    out = np.empty(num_rows * num_outputs, dtype=np.uint16)

    async def run() -> float:
        began = time.thread_time()
        for offset in addresses:
            module.linear(
                rows=_address(rows),
                num_rows=num_rows,
                row_stride=width,
                weight=weights.address + offset,
                weight_stride=width,
                bias=0,
                out=_address(out),
                num_outputs=num_outputs,
                width=width,
                dtype=BFLOAT16,
            )
        return len(addresses) * num_bytes / (time.thread_time() - began) / 1e9

    return run


def _address(numbers: np.ndarray[Any, Any]) -> int:
    return int(numbers.__array_interface__["data"][0])


def _nothing() -> None:
    pass
