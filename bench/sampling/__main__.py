"""`python -m bench.sampling`: drawing a step's tokens from a large vocabulary, against the way
before.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from bench.harness.command import bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import ratio_of, spread_of
from bench.harness.table import Table
from bench.sampling.former import draw_formerly
from services.model.likelihood import likelihood
from services.model.sampler import are_finite, draw_all
from services.model.shaping import Shaping
from services.wire.sampling import Sampling

VOCABULARY, NUM_ROWS = 151_936, 64
# How far a row's logits lie apart: their standard deviation.
ROWS = {"flat": 0.01, "middling": 1.0, "peaked": 3.0}
SAMPLINGS = {
    "as likely as they are": Sampling(),
    "top-p 0.95": Sampling(top_p=0.95),
    "min-p 0.05": Sampling(min_p=0.05),
    "top-k 20, top-p 0.95": Sampling(top_k=20, top_p=0.95),
}
NUM_KNOWN = 500  # tokens of a sequence with penalties
NUM_TOP = 20
BEFORE, NOW = "before", "now"
NUM_ROUNDS, QUICK_ROUNDS = 21, 3

COMPARED = (
    f"{NUM_ROWS} rows of {VOCABULARY:,} random logits drawn from at once, on one thread: the way "
    "before, written out in torch (probabilities in float64, and the whole row in order where the "
    "64 likeliest tokens do not decide), and as it is, in turn. Then what else may be asked of a "
    "row."
)


async def measure(options: Namespace, stages: Stages) -> Report:
    """Draws, then what comes before and beside them."""
    torch.set_num_threads(1)
    report = Report("sampling", COMPARED)
    num_rounds = QUICK_ROUNDS if options.quick else NUM_ROUNDS
    table = Table(
        f"{NUM_ROWS} rows, ms", ("rows", "drawn", BEFORE, NOW, f"{BEFORE} ÷ {NOW}", "a row, now")
    )
    for kind, spread in ROWS.items():
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn(NUM_ROWS, VOCABULARY, generator=generator) * spread
        for name, sampling in SAMPLINGS.items():
            with stages.stage(f"{kind} rows, {name}", num_rounds + 1):
                taken = await _draws(logits, sampling, num_rounds, stages.step)
            before, now = taken.get(BEFORE), taken[NOW]
            table.add(
                *(kind, name, spread_of(before) if before else None, spread_of(now)),
                *(ratio_of(before, now) if before else None, spread_of(now).scaled(1 / NUM_ROWS)),
            )
            report.samples[f"{kind}, {name}, ms"] = taken
    report.tables += [table, await _others(logits, num_rounds, stages)]
    report.panels.append(partial(_draw_panel, table=table))
    return report


async def _draws(
    logits: torch.Tensor, sampling: Sampling, num_rounds: int, step: Callable[[], None]
) -> dict[str, list[float]]:
    samplings, positions = [sampling] * NUM_ROWS, range(NUM_ROWS)
    variants = {NOW: _timed(partial(draw_all, logits, samplings, positions))}
    if not sampling.top_k and not sampling.min_p:
        variants[BEFORE] = _timed(partial(draw_formerly, logits, samplings, positions))
    return await interleaved(variants, num_rounds, after_round=step)


async def _others(logits: torch.Tensor, num_rounds: int, stages: Stages) -> Table:
    penalised = Sampling(repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=0.5)
    shaping = Shaping.wanted(penalised, range(NUM_KNOWN), range(NUM_KNOWN))
    allowed = Shaping.wanted(Sampling(allowed_token_ids=tuple(range(0, 50_000, 7))), ())
    assert shaping is not None
    assert allowed is not None
    tasks: dict[str, Callable[[], object]] = {
        "whether all are finite": partial(are_finite, logits),
        f"three penalties on {NUM_KNOWN} tokens": lambda: [shaping.shaped(row) for row in logits],
        "an allowed set": lambda: [allowed.shaped(row) for row in logits],
        f"likelihoods, {NUM_TOP} of the most likely": lambda: [
            likelihood(row, 1, NUM_TOP) for row in logits
        ],
    }
    with stages.stage("what else may be asked", num_rounds + 1):
        taken = await interleaved(
            {name: _timed(task) for name, task in tasks.items()},
            num_rounds,
            after_round=stages.step,
        )
    table = Table(f"Beside the draw, {NUM_ROWS} rows, ms", ("asked", "ms"))
    for name, samples in taken.items():
        table.add(name, spread_of(samples))
    return table


def _timed(task: Callable[[], object]) -> Any:
    async def run() -> float:
        began = time.perf_counter()
        task()
        return (time.perf_counter() - began) * 1e3

    return run


def _draw_panel(axis: Any, *, table: Table) -> None:
    rows = [(f"{row[0]}, {row[1]}", row[3]) for row in reversed(table.rows)]
    axis.barh([name for name, _ in rows], [getattr(now, "median", 0) for _, now in rows])
    axis.set_xlabel(f"ms for {NUM_ROWS} rows", fontsize=8)
    axis.tick_params(labelsize=6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    return run_bench(bench_parser("sampling", COMPARED), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
