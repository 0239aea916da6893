"""`python -m bench.layer`: one MoE layer's scatter, compute and gather, part by part, and the
router's options.
"""

import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import chain

from bench.harness.command import bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import ratio_of, spread_of
from bench.harness.table import Table
from bench.layer.alone import ExpertCompute, FrameParts
from bench.layer.cases import NUM_SERVICES, Case, cases
from bench.layer.options import add_options
from bench.layer.path import NUM_LAYERS, LayerPath
from bench.layer.tables import Taken, add_paths
from bench.rig.checkpoints import LAYER_OF_470M, experts_only
from bench.rig.peers import connected, dispatcher_over
from bench.rig.transports import VARIABLES, add_transports
from services.model.checkpoint import Checkpoint

COMPARED = (
    "one MoE layer through the router's Dispatcher: rows scattered to two real expert services of "
    "one thread each, "
    "computed, gathered and combined. The path's parts follow one another and add up; parts alone "
    "are the same "
    f"functions over and over without a wire. Shapes take turns, each over each transport, with a "
    f"step of {NUM_LAYERS} layers each: a layer comes "
    "after another of its step, as in a model, and what is done once for a step falls on one "
    f"sample in {NUM_LAYERS}."
)


async def measure(options: Namespace, stages: Stages) -> Report:
    """All cases over all transports in turn, then the parts alone, then expert compute against
    reading, then the options.
    """
    num_rounds = 30 if options.quick else 200
    report = Report("layer", COMPARED)
    with stages.stage("making checkpoints"):
        found = cases()
    taken = await _paths(found, options.transports, 4 if options.quick else 12, stages)
    add_paths(report, taken)
    with stages.stage("parts alone"):
        _add_alone(report, found, num_rounds * 4)
    with stages.stage("expert compute against reading", num_rounds + 1):
        await _add_compute(report, num_rounds, stages)
    await add_options(report, options.transports[-1], num_rounds, stages)
    return report


async def _paths(
    found: Sequence[Case], transports: Sequence[str], num_steps: int, stages: Stages
) -> list[Taken]:
    kinds = {
        f"{case.label}, {transport}": (case, transport)
        for case in found
        for transport in transports
    }
    async with AsyncExitStack() as stack:
        with stages.stage("starting services"):
            paths = {name: await _path(*kind, stack) for name, kind in kinds.items()}
        with stages.stage("steps of one shape after the other, in turn", num_steps + 1):
            steps = {name: path.step for name, path in paths.items()}
            samples = await interleaved(steps, num_steps, after_round=stages.step)
    return [Taken(*kind, list(chain.from_iterable(samples[name]))) for name, kind in kinds.items()]


async def _path(case: Case, transport: str, stack: AsyncExitStack) -> LayerPath:
    checkpoint = Checkpoint.open(case.model)
    servers = await stack.enter_async_context(case.services(VARIABLES[transport]))
    peers = await stack.enter_async_context(
        connected(checkpoint, [server.address for server in servers])
    )
    pids = [server.pid for server in servers]
    dispatcher = dispatcher_over(checkpoint, peers)
    return LayerPath(
        checkpoint, dispatcher, num_rows=case.num_rows, top_k=case.top_k, service_pids=pids
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("layer", COMPARED, ("--transports native",))
    add_transports(parser)
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
