"""`python -m bench.scale`: what the tensor path costs with more services, layers, rows and steps in
flight.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.plot import draw_spreads, label_axes
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import ratio_of, spread_of
from bench.harness.table import Table
from bench.rig.checkpoints import experts_only, hollow
from bench.rig.peers import connected
from bench.rig.processes import forked
from bench.rig.simulated import DeviceTime, SimulatedExpert, simulated_expert
from bench.scale.load import Fleet, Load, LoadSample
from services.model.checkpoint import Checkpoint

WIDTHS = (192, 1024, 2048, 4096)
NUM_LAYERS, NUM_EXPERTS = 8, 64
NUM_SERVICES = (1, 2, 4, 8, 16, 32)
MAX_CONCURRENCY = 4
NUM_STEPS = 4  # of each lane in a turn, so that lanes come out of step with each other
ROWS_EACH = 64
HELD = DeviceTime(base_nanos=40_000_000)
# About what a small accelerator takes for experts of this width: a launch, the weights to read, the
# rows to multiply.
FITTED = DeviceTime(base_nanos=500_000, expert_nanos=20_000, row_nanos=1_000)

COMPARED = (
    "SIMULATED devices: real expert services, each a process of its own, with real frames of "
    "bfloat16 rows "
    "through the router's Dispatcher; results are zero, and a reply is held until a + b·active "
    "experts + c·rows has "
    "passed. What a step takes beyond the held time is what disaggregation costs here, with every "
    "process on the "
    "cores of this machine."
)


def sweeps() -> dict[str, dict[str, Load]]:
    """What is varied, by the name of the table; a value is the load's label."""
    return {
        "layers": {str(count): Load(4, num_layers=count) for count in (1, 2, 4, 8)},
        "rows": {str(count): Load(4, num_rows=count) for count in (1, 4, 16, 64, 256)},
        "steps in flight": {
            str(count): Load(4, num_layers=4, concurrency=count, num_steps=NUM_STEPS)
            for count in (1, 2, 4)
        },
    }


async def measure(options: Namespace, stages: Stages) -> Report:
    """The number of services with replies held 40 ms, then layers, rows and steps in flight with a
    fitted device.
    """
    counts: Sequence[int] = sorted(options.services)
    report = Report("scale", COMPARED)
    with stages.stage("making a checkpoint"):
        model = experts_only(hollow(options.width, NUM_LAYERS, NUM_EXPERTS, 8))
    num_rounds = 7 if options.quick else 40
    async with AsyncExitStack() as stack:
        fleet = await _fleet(stack, stages, model, HELD, max(counts))
        for concurrency in (1, 2):
            shared = {"rows_each": ROWS_EACH, "concurrency": concurrency, "num_steps": NUM_STEPS}
            loads = {str(count): Load(count, **shared) for count in counts}
            title = f"services, steps in flight: {concurrency}"
            report.samples[title] = await _run(fleet, title, loads, num_rounds, stages)
            _add_services(report, title, options.width, loads, report.samples[title])
    async with AsyncExitStack() as stack:
        fleet = await _fleet(stack, stages, model, FITTED, 4)
        for title, loads in sweeps().items():
            report.samples[title] = await _run(fleet, title, loads, num_rounds * 3, stages)
            _add_sweep(report, title, loads, report.samples[title])
    report.samples = {
        title: {label: [vars(sample) for sample in taken] for label, taken in samples.items()}
        for title, samples in report.samples.items()
    }
    return report


async def _fleet(
    stack: AsyncExitStack, stages: Stages, model: Path, time: DeviceTime, count: int
) -> Fleet:
    with stages.stage(f"starting simulated services: {count}"):
        servers = await stack.enter_async_context(
            forked(simulated_expert, [SimulatedExpert(model, time)] * count)
        )
        checkpoint = Checkpoint.open(model)
        addresses = [server.address for server in servers]
        peers = await stack.enter_async_context(
            connected(checkpoint, addresses, num_lanes=MAX_CONCURRENCY)
        )
    return Fleet(checkpoint, time, servers, peers)


async def _run(
    fleet: Fleet, title: str, loads: dict[str, Load], num_rounds: int, stages: Stages
) -> dict[str, list[LoadSample]]:
    with stages.stage(f"{title}: {', '.join(loads)}", num_rounds + 1):
        variants = {label: partial(fleet.run, load) for label, load in loads.items()}
        return await interleaved(variants, num_rounds, after_round=stages.step)


def _add_services(
    report: Report,
    title: str,
    width: int,
    loads: dict[str, Load],
    samples: dict[str, list[LoadSample]],
) -> None:
    table = Table(
        f"{title}; {ROWS_EACH} rows x {width} to each, SIMULATED devices hold a reply {HELD}",
        (
            "services",
            "step ms",
            "held ms",
            "rows/s",
            "rows/s ÷ (services x one service's)",
            *_CPU_HEADINGS,
        ),
    )
    fewest = next(iter(samples))
    base = [sample.rows_per_second / loads[fewest].num_services for sample in samples[fewest]]
    efficiencies = []
    for label, taken in samples.items():
        rates = [sample.rows_per_second for sample in taken]
        efficiency = ratio_of([rate / loads[label].num_services for rate in rates], base)
        efficiencies.append(efficiency)
        table.add(
            label,
            _spread(taken, "step_ms"),
            taken[0].held_ms,
            spread_of(rates),
            efficiency,
            *_cpu(taken),
        )
    report.tables.append(table)

    def draw(axis: Any) -> None:
        draw_spreads(axis, [load.num_services for load in loads.values()], efficiencies, "measured")
        axis.axhline(0.7, color="red", linewidth=0.8, label="must")
        label_axes(
            axis,
            f"{title} (SIMULATED devices, 40 ms)",
            "services",
            "throughput ÷ (services x one's)",
        )

    report.panels.append(draw)


def _add_sweep(
    report: Report, title: str, loads: dict[str, Load], samples: dict[str, list[LoadSample]]
) -> None:
    load = next(iter(loads.values()))
    table = Table(
        f"{title}: {load.num_services} services, SIMULATED devices hold a reply {FITTED}",
        (
            title,
            "step ms",
            "held by devices ms",
            "beyond that, ms a layer",
            "rows/s",
            *_CPU_HEADINGS,
        ),
    )
    beyond_spreads = []
    for label, taken in samples.items():
        num_layers = loads[label].num_layers
        beyond = spread_of([(sample.step_ms - sample.held_ms) / num_layers for sample in taken])
        beyond_spreads.append(beyond)
        rates = _spread(taken, "rows_per_second")
        table.add(label, _spread(taken, "step_ms"), taken[0].held_ms, beyond, rates, *_cpu(taken))
    report.tables.append(table)

    def draw(axis: Any) -> None:
        draw_spreads(axis, [int(label) for label in loads], beyond_spreads, "measured")
        label_axes(axis, f"{title} (SIMULATED devices)", title, "ms a layer beyond the held time")

    report.panels.append(draw)


_CPU_HEADINGS = ("router CPU µs/frame", "service CPU µs/frame")


def _cpu(taken: Sequence[LoadSample]) -> tuple[Any, Any]:
    return (
        spread_of([sample.router_cpu_ms / sample.num_frames * 1e3 for sample in taken]),
        spread_of([sample.service_cpu_ms / sample.num_frames * 1e3 for sample in taken]),
    )


def _spread(taken: Sequence[LoadSample], name: str) -> Any:
    return spread_of([getattr(sample, name) for sample in taken])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("scale", COMPARED, ("--services 1,32", "--width 192"))
    parser.add_argument(
        "--width",
        type=int,
        default=2048,
        choices=WIDTHS,
        help="elements of a row (default: %(default)s)",
    )
    add_numbers(parser, "services", NUM_SERVICES, "numbers of services")
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
