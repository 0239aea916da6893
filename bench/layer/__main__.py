"""`python -m bench.layer`: one MoE layer's scatter, compute and gather, part by part, and the
router's options.
"""

import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from bench.harness.command import bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import ratio_of, spread_of
from bench.harness.table import Table
from bench.layer.alone import ExpertCompute, FrameParts
from bench.layer.options import add_options
from bench.layer.path import NUM_LAYERS, LayerPath, LayerSample
from bench.rig.checkpoints import LAYER_OF_470M, LAYER_OF_OLMOE, experts_only, hollow
from bench.rig.expert_members import expert_members
from bench.rig.peers import connected, dispatcher_over
from bench.rig.processes import Server, forked, services_running
from bench.rig.simulated import SimulatedExpert, simulated_expert
from services.model.checkpoint import Checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL

NUM_SERVICES = 2
PATH_PARTS = (
    "encode",
    "wire",
    "expert_queue",
    "expert_compute",
    "straggler_wait",
    "lane_wait",
    "combine",
)
SERVICE_PARTS = ("wire", "decode", "queue", "compute", "encode")

COMPARED = (
    "one MoE layer through the router's Dispatcher: rows scattered to two real expert services of "
    "one thread each, "
    "computed, gathered and combined. The path's parts follow one another and add up; parts alone "
    "are the same "
    f"functions over and over without a wire. Shapes take turns with a step of {NUM_LAYERS} "
    "layers each: a layer comes "
    "after another of its step, as in a model, and what is done once for a step falls on one "
    f"sample in {NUM_LAYERS}."
)


@dataclass(frozen=True)
class Case:
    """A layer and how many rows go through it."""

    name: str
    model: Path
    num_rows: int
    top_k: int
    is_simulated: bool = False

    @property
    def label(self) -> str:
        """Its name, and that it is simulated where it is."""
        return f"{self.name}, SIMULATED devices without time" if self.is_simulated else self.name


def cases() -> list[Case]:
    """The issue's shapes; the last is one row of 4 KiB to each service."""
    return [
        Case("64 rows x 2048, top-8 of 64", experts_only(LAYER_OF_OLMOE), 64, 8),
        Case("64 rows x 192, top-2 of 16 (shipped)", EMBEDDED_MODEL, 64, 2),
        Case(
            "1 row x 2048, top-2 of 2 (4 KiB)",
            experts_only(hollow(2048, 1, 2, 2)),
            1,
            2,
            is_simulated=True,
        ),
    ]


async def measure(options: Namespace, stages: Stages) -> Report:
    """All cases in turn, then the parts alone, then expert compute against reading, then the
    options.
    """
    num_rounds = 30 if options.quick else 200
    report = Report("layer", COMPARED)
    with stages.stage("making checkpoints"):
        found = cases()
    async with AsyncExitStack() as stack:
        with stages.stage("starting services"):
            paths = {case.label: await _path(case, stack) for case in found}
        num_steps = 4 if options.quick else 12
        with stages.stage("steps of one shape after the other, in turn", num_steps + 1):
            steps = {label: path.step for label, path in paths.items()}
            taken = await interleaved(steps, num_steps, after_round=stages.step)
    samples = {label: list(chain.from_iterable(layers)) for label, layers in taken.items()}
    report.samples["path, ns"] = {
        name: [vars(sample) for sample in taken] for name, taken in samples.items()
    }
    _add_path(report, samples)
    _add_service(report, samples)
    _add_cpu(report, found, samples)
    with stages.stage("parts alone"):
        _add_alone(report, found, num_rounds * 4)
    with stages.stage("expert compute against reading", num_rounds + 1):
        await _add_compute(report, num_rounds, stages)
    await add_options(report, num_rounds, stages)
    return report


async def _path(case: Case, stack: AsyncExitStack) -> LayerPath:
    checkpoint = Checkpoint.open(case.model)
    servers = await stack.enter_async_context(_servers(case))
    peers = await stack.enter_async_context(
        connected(checkpoint, [server.address for server in servers])
    )
    pids = [server.pid for server in servers]
    dispatcher = dispatcher_over(checkpoint, peers)
    return LayerPath(
        checkpoint, dispatcher, num_rows=case.num_rows, top_k=case.top_k, service_pids=pids
    )


def _servers(case: Case) -> AbstractAsyncContextManager[list[Server]]:
    if case.is_simulated:
        return forked(simulated_expert, [SimulatedExpert(case.model)] * NUM_SERVICES)
    return services_running(expert_members(case.model, NUM_SERVICES))


def _add_path(report: Report, samples: dict[str, list[LayerSample]]) -> None:
    table = Table("critical path of one layer, µs", ("part", *samples))
    for part in PATH_PARTS:
        table.add(
            part.replace("_", " "),
            *(_micros([s.parts[part] for s in taken]) for taken in samples.values()),
        )
    table.add("all", *(_micros([sample.total for sample in taken]) for taken in samples.values()))
    report.tables.append(table)
    report.panels.append(partial(_draw, samples=samples))


def _add_service(report: Report, samples: dict[str, list[LayerSample]]) -> None:
    table = Table("of one frame, µs, as the service and the stream timed it", ("part", *samples))
    for part in SERVICE_PARTS:
        frames = (
            [frame[part] for sample in taken for frame in sample.service]
            for taken in samples.values()
        )
        table.add(part if part == "wire" else f"service: {part}", *map(_micros, frames))
    report.tables.append(table)


def _add_cpu(report: Report, found: Sequence[Case], samples: dict[str, list[LayerSample]]) -> None:
    table = Table(
        "CPU time, gRPC's threads included",
        (
            "shape",
            "router µs/frame",
            "service µs/frame",
            "router s/1,000 routed tokens",
            "services s/1,000",
        ),
    )
    for case, taken in zip(found, samples.values(), strict=True):
        table.add(
            case.label,
            spread_of([sample.router_cpu / len(sample.service) / 1e3 for sample in taken]),
            spread_of([sample.service_cpu / len(sample.service) / 1e3 for sample in taken]),
            spread_of([sample.router_cpu / case.num_rows / 1e6 for sample in taken]),
            spread_of([sample.service_cpu / case.num_rows / 1e6 for sample in taken]),
        )
    report.tables.append(table)
    report.notes.append(
        "a routed token is one row through one layer; the router's side here has no model around it"
    )


def _add_alone(report: Report, found: Sequence[Case], num_rounds: int) -> None:
    columns = {}
    for case in found:
        checkpoint = Checkpoint.open(case.model)
        parts = FrameParts(
            checkpoint, num_rows=case.num_rows, top_k=case.top_k, num_services=NUM_SERVICES
        )
        columns[case.name] = parts.timed(num_rounds)
        sent, returned = parts.frame_bytes
        report.notes.append(f"{case.name}: a frame has {sent:,} bytes, its reply {returned:,}")
    table = Table("each part alone, µs", ("part", *columns))
    for part in next(iter(columns.values())):
        table.add(part, *(spread_of(samples[part]) for samples in columns.values()))
    report.samples["alone, µs"] = columns
    report.tables.append(table)


async def _add_compute(report: Report, num_rounds: int, stages: Stages) -> None:
    compute = ExpertCompute(experts_only(LAYER_OF_470M), num_rows=16, top_k=4)
    try:
        samples = await interleaved(compute.variants(), num_rounds, after_round=stages.step)
    finally:
        compute.close()
    fastest = min(
        (name for name in samples if name != "compute"),
        key=lambda name: statistics.median(samples[name]),
    )
    table = Table(
        f"experts of the 470 M model's layer, 16 rows, {compute.num_active} of 32 experts active, "
        "one thread",
        ("", "ms", "GB/s"),
    )
    for name, taken in samples.items():
        spread = spread_of(taken)
        table.add(name, spread, compute.active_bytes / spread.median / 1e6)
    table.add(f"compute ÷ {fastest}", ratio_of(samples["compute"], samples[fastest]), None)
    report.samples["expert compute, ms"] = samples
    report.tables.append(table)


def _micros(nanos: Sequence[int]) -> Any:
    return spread_of(nanos).scaled(1e-3)


def _draw(axis: Any, *, samples: dict[str, list[LayerSample]]) -> None:
    # Shares, not times: on an axis that holds all three shapes, what is drawn first would look like
    # most of it.
    totals = [statistics.median(sample.total for sample in taken) for taken in samples.values()]
    left = [0.0] * len(samples)
    for part in PATH_PARTS:
        medians = [
            statistics.median(sample.parts[part] for sample in taken) for taken in samples.values()
        ]
        shares = [100 * median / total for median, total in zip(medians, totals, strict=True)]
        axis.barh(
            [name.replace(", ", "\n") for name in samples],
            shares,
            left=left,
            label=part.replace("_", " "),
        )
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axis.set_xlabel("% of the critical path's median", fontsize=8)
    axis.tick_params(labelsize=6)
    axis.legend(fontsize=6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    return run_bench(bench_parser("layer", COMPARED), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
