"""`python -m bench.kernels`: the compiled kernels against torch, operation by operation, and how
far either is from float32.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import ratio_of, spread_of
from bench.harness.table import Table
from bench.kernels.error import error_table
from bench.kernels.kinds import KINDS_COMPARED, kind_samples, models
from bench.kernels.load import KERNELS, TORCH, KernelLoad, kernels_running
from bench.rig.checkpoints import OLMOE_470M, whole_model
from services.runtime.embedded_model import EMBEDDED_MODEL

ROWS = (1, 16)
NUM_ROUNDS, QUICK_ROUNDS = 41, 9

COMPARED = (
    "what a decode step does in one layer, each thing alone and over and over on one thread, and "
    "the whole trunk's "
    "forward with experts that cost next to nothing: a process with the compiled kernels against "
    "one with torch alone "
    "(MOESAIC_KERNELS=off), asked in turn. Times are CPU time. Each row of attention sees 100 "
    "keys and its own. Before "
    "that the error of both, and of transformers, against transformers in float32."
)

Taken = dict[str, dict[int, dict[str, list[float]]]]
"""Samples by operation, number of rows, and who computed."""


@dataclass(frozen=True)
class Case:
    """A model and the type that it computes in."""

    name: str
    model: Path
    dtype: torch.dtype


def cases() -> list[Case]:
    """The shipped model in both types, and the one of 470 M parameters in its own."""
    return [
        Case("shipped model, bfloat16", EMBEDDED_MODEL, torch.bfloat16),
        Case("shipped model, float32", EMBEDDED_MODEL, torch.float32),
        Case("470 M model, bfloat16", whole_model(OLMOE_470M), torch.bfloat16),
    ]


async def measure(options: Namespace, stages: Stages) -> Report:
    """The error of the first case, which is the shipped model in bfloat16; then all cases, one
    after the other.
    """
    if options.kinds:
        return await measure_kinds(options, stages)
    report = Report("kernels", COMPARED)
    with stages.stage("making or finding the checkpoints"):
        found = cases()
    for number, case in enumerate(found):
        async with AsyncExitStack() as stack:
            with stages.stage(f"{case.name}: starting workers"):
                loads = await stack.enter_async_context(kernels_running(case.model, case.dtype))
            if number == 0:
                report.notes.append(f"the kernels' instruction set is {loads[KERNELS].level}")
                with stages.stage(f"{case.name}: error against float32"):
                    report.tables.append(await error_table(case.model, loads))
            await add_operations(report, case, loads, options, stages)
    return report


async def add_operations(
    report: Report, case: Case, loads: dict[str, KernelLoad], options: Namespace, stages: Stages
) -> None:
    """Time every operation of a case on every number of rows."""
    taken: Taken = {}
    num_rounds = QUICK_ROUNDS if options.quick else NUM_ROUNDS
    for num_rows in options.rows:
        for load in loads.values():
            names = await load.prepare(num_rows)
        with stages.stage(f"{case.name}, rows: {num_rows}", len(names) * (num_rounds + 1)):
            for name in names:
                variants = {variant: partial(load.time, name) for variant, load in loads.items()}
                samples = await interleaved(variants, num_rounds, after_round=stages.step)
                taken.setdefault(name, {})[num_rows] = samples
    report.samples[f"{case.name}, µs of CPU time"] = taken
    report.tables.append(operations_table(case.name, taken))
    report.panels.append(partial(_draw, title=case.name, taken=taken))


async def measure_kinds(options: Namespace, stages: Stages) -> Report:
    """Time experts of other kinds on every number of rows."""
    report = Report("kernels", KINDS_COMPARED)
    num_rounds = QUICK_ROUNDS if options.quick else NUM_ROUNDS
    with stages.stage("making or finding the checkpoints"):
        found = models()
    for name, model in found.items():
        with stages.stage(name, len(options.rows) * (num_rounds + 1)):
            taken: Taken = {
                "expert": await kind_samples(model, options.rows, num_rounds, stages.step)
            }
        report.samples[f"{name}, µs of CPU time"] = taken
        report.tables.append(operations_table(name, taken))
        report.panels.append(partial(_draw, title=name, taken=taken))
    return report


def operations_table(title: str, taken: Taken) -> Table:
    """Times and ratios of all operations."""
    table = Table(f"{title}, µs", ("operation", "rows", TORCH, KERNELS, f"{TORCH} ÷ {KERNELS}"))
    for name, by_rows in taken.items():
        for num_rows, samples in by_rows.items():
            torchs, ours = samples[TORCH], samples[KERNELS]
            table.add(name, num_rows, spread_of(torchs), spread_of(ours), ratio_of(torchs, ours))
    return table


def _draw(axis: Any, *, title: str, taken: Taken) -> None:
    names = list(reversed(taken))
    counts = list(taken[names[0]])
    height = 0.8 / len(counts)
    for number, num_rows in enumerate(counts):
        ratios = [
            ratio_of(taken[name][num_rows][TORCH], taken[name][num_rows][KERNELS]).median
            for name in names
        ]
        places = [place - number * height for place in range(len(names))]
        axis.barh(places, ratios, height=height, label=f"{num_rows} rows")
    axis.set_yticks(range(len(names)), names, fontsize=6)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(f"{TORCH} ÷ {KERNELS}", fontsize=8)
    axis.legend(fontsize=7)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("kernels", COMPARED, ("--rows 1,4,16,64", "--kinds --rows 1,4,16"))
    add_numbers(parser, "rows", ROWS, "numbers of rows")
    parser.add_argument(
        "--kinds", action="store_true", help="experts of gpt-oss's kind, and nothing else"
    )
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
