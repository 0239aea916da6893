"""`python -m bench.transport`: the tensor stream, over each transport, against a bare grpc.aio echo
and a TCP echo in C of the same bytes.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.rig.checkpoints import experts_only, hollow
from bench.rig.peers import connected
from bench.rig.processes import forked
from bench.rig.simulated import SimulatedExpert, simulated_expert
from bench.rig.transports import VARIABLES, add_transports
from bench.transport.echo import EchoClient, echo_server, echoing
from bench.transport.floor import NoFloor, compiled_floor, floor_running
from bench.transport.tables import ECHO, FLOOR, KIB, MIB, Case, fill, shown_size
from bench.transport.tensor import TensorClient, encode, frames_of, message_bytes
from services.model.checkpoint import Checkpoint

SIZES = (4 * KIB, 64 * KIB, MIB, 8 * MIB)
NUM_SERVICES = (1, 2, 4, 8)
NUM_WARM_UPS = 3
HIDDEN_SIZE = 2048  # a row of 4 KiB in bfloat16

COMPARED = (
    "the router's ExpertStream to real expert services (frames with checksums written and read, "
    "queued, batched, "
    "answered with as many bytes of rows; the device behind them is SIMULATED and takes no time) "
    "against a bare "
    "grpc.aio stream that echoes the same bytes with the same channel options, and against as many "
    "bytes there and back over TCP in C, with nothing around them. Each server is "
    "a process of its own. "
    "A sample is one exchange with all services at once."
)


@dataclass(frozen=True)
class Parties:
    """Everybody that exchanges, running: a tensor client by transport, and the floor's program."""

    checkpoint: Checkpoint
    tensors: Mapping[str, TensorClient]
    echo: EchoClient
    floor: Path | None


def num_rounds_of(num_bytes: int, num_services: int, *, quick: bool) -> int:
    """Rounds for about the same time in each case: fewer of larger ones, and never fewer than a
    spread takes.
    """
    budget = (16 if quick else 128) * MIB
    most = 60 if quick else 400
    return max(5 if quick else 11, min(most, budget // (num_bytes * num_services)))


async def measure(options: Namespace, stages: Stages, *, model: Path | None = None) -> Report:
    """Every size with every number of services."""
    report = Report("transport", COMPARED)
    cases = []
    async with AsyncExitStack() as stack:
        with stages.stage("starting servers"):
            floor = await _floor(report)
            parties = await _parties(options, model, floor, stack)
        for num_bytes in options.sizes:
            for count in options.services:
                rounds = num_rounds_of(num_bytes, count, quick=options.quick)
                title = f"{shown_size(num_bytes)}, services: {count}"
                with stages.stage(title, rounds + NUM_WARM_UPS):
                    samples = await compare(parties, num_bytes, count, rounds, stages)
                cases.append(Case(num_bytes, count, samples))
    fill(report, cases, options.transports)
    return report


async def _floor(report: Report) -> Path | None:
    try:
        return await compiled_floor()
    except NoFloor as error:
        report.notes.append(f"the {FLOOR} is left out: {error}")
        return None


async def _parties(
    options: Namespace, model: Path | None, floor: Path | None, stack: AsyncExitStack
) -> Parties:
    most = max(options.services)
    model = model or experts_only(hollow(HIDDEN_SIZE, 1, 1, 1))
    checkpoint = Checkpoint.open(model)
    tensors = {}
    for transport in options.transports:
        experts = await stack.enter_async_context(
            forked(simulated_expert, [SimulatedExpert(model)] * most, VARIABLES[transport])
        )
        addresses = [server.address for server in experts]
        peers = await stack.enter_async_context(connected(checkpoint, addresses))
        tensors[transport] = TensorClient(checkpoint, peers)
    echoes = await stack.enter_async_context(forked(echo_server, [None] * most))
    echo = await stack.enter_async_context(echoing([server.address for server in echoes]))
    return Parties(checkpoint, tensors, echo, floor)


async def compare(
    parties: Parties, num_bytes: int, num_services: int, num_rounds: int, stages: Stages
) -> dict[str, list[float]]:
    """Milliseconds of each exchange, by variant."""
    frames = frames_of(parties.checkpoint, num_bytes)
    messages = [encode(rows, 0, 0) for rows in frames]
    variants = {ECHO: timed(partial(parties.echo.exchange, messages, num_services))}
    for transport, tensor in parties.tensors.items():
        variants[transport] = timed(partial(tensor.exchange, frames, num_services))
    async with AsyncExitStack() as stack:
        if parties.floor is not None:
            sizes = [message_bytes(rows) for rows in frames]
            floor = await stack.enter_async_context(
                floor_running(parties.floor, sizes, num_services)
            )
            variants = {FLOOR: floor.exchange, **variants}
        return await interleaved(
            variants, num_rounds, after_round=stages.step, num_warm_ups=NUM_WARM_UPS
        )


def timed(run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    """The same, returning the milliseconds that it took."""

    async def run_timed() -> float:
        began = time.perf_counter_ns()
        await run()
        return (time.perf_counter_ns() - began) / 1e6

    return run_timed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("transport", COMPARED, ("--sizes 4096,1048576 --services 1,2",))
    add_numbers(parser, "sizes", SIZES, "bytes of rows each way, multiples of 4096")
    add_numbers(parser, "services", NUM_SERVICES, "numbers of services")
    add_transports(parser)
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
