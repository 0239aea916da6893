"""`python -m bench.scale`: what the tensor path costs with more services, layers, rows and steps in
flight.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.rig.checkpoints import experts_only, hollow
from bench.rig.peers import connected
from bench.rig.processes import forked
from bench.rig.simulated import DeviceTime, SimulatedExpert, simulated_expert
from bench.rig.transports import VARIABLES, add_transports
from bench.scale.load import Fleet, Load
from bench.scale.slowed import add_slowed
from bench.scale.tables import Taken, add_services, add_sweep
from services.model.checkpoint import Checkpoint

WIDTHS = (192, 1024, 2048, 4096)
NUM_LAYERS, NUM_EXPERTS = 8, 64
NUM_SERVICES = (1, 2, 4, 8, 16, 32)
MAX_CONCURRENCY = 4
STEPS_SLOWED = 200  # of a round with one of two replicas slowed
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
    "cores of this machine. Services over each transport are there at once; those of one work at a "
    "time."
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
    fitted device, all of it over each transport in turn; then one of two replicas slowed.
    """
    counts: Sequence[int] = sorted(options.services)
    report = Report("scale", COMPARED)
    with stages.stage("making a checkpoint"):
        model = experts_only(hollow(options.width, NUM_LAYERS, NUM_EXPERTS, 8))
    num_rounds = 7 if options.quick else 40
    async with AsyncExitStack() as stack:
        fleets = await _fleets(stack, stages, model, HELD, max(counts), options.transports)
        for concurrency in (1, 2):
            shared = {"rows_each": ROWS_EACH, "concurrency": concurrency, "num_steps": NUM_STEPS}
            loads = {str(count): Load(count, **shared) for count in counts}
            title = f"services, steps in flight: {concurrency}"
            all_taken = await _run(fleets, title, loads, num_rounds, stages)
            heading = f"{title}; {ROWS_EACH} rows x {options.width} to each, SIMULATED devices"
            add_services(report, title, f"{heading} hold a reply {HELD}", all_taken)
    async with AsyncExitStack() as stack:
        fleets = await _fleets(stack, stages, model, FITTED, 4, options.transports)
        for title, loads in sweeps().items():
            all_taken = await _run(fleets, title, loads, num_rounds * 3, stages)
            add_sweep(report, title, f"SIMULATED devices hold a reply {FITTED}", all_taken)
    await add_slowed(report, stages, model, FITTED, num_rounds, STEPS_SLOWED)
    return report


async def _fleets(
    stack: AsyncExitStack,
    stages: Stages,
    model: Path,
    time: DeviceTime,
    count: int,
    transports: Sequence[str],
) -> dict[str, Fleet]:
    fleets = {}
    for transport in transports:
        with stages.stage(f"starting simulated services, {transport}: {count}"):
            experts = [SimulatedExpert(model, time)] * count
            servers = await stack.enter_async_context(
                forked(simulated_expert, experts, VARIABLES[transport])
            )
            checkpoint = Checkpoint.open(model)
            addresses = [server.address for server in servers]
            peers = await stack.enter_async_context(
                connected(checkpoint, addresses, num_lanes=MAX_CONCURRENCY)
            )
        fleets[transport] = Fleet(checkpoint, time, servers, peers)
    return fleets


async def _run(
    fleets: Mapping[str, Fleet],
    title: str,
    loads: Mapping[str, Load],
    num_rounds: int,
    stages: Stages,
) -> list[Taken]:
    # Transports next to each other, which are compared with each other.
    kinds = {f"{label}, {transport}": (label, transport) for label in loads for transport in fleets}
    with stages.stage(f"{title}: {', '.join(loads)}", num_rounds + 1):
        variants = {
            name: partial(fleets[transport].run, loads[label])
            for name, (label, transport) in kinds.items()
        }
        samples = await interleaved(variants, num_rounds, after_round=stages.step)
    return [
        Taken(label, transport, loads[label], samples[name])
        for name, (label, transport) in kinds.items()
    ]


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
    add_transports(parser)
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
