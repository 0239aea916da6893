"""`python -m bench.transport`: the tensor stream, over each transport, against a bare grpc.aio echo
and echoes in C of the same bytes.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path

import torch

from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.rig.checkpoints import experts_only, hollow
from bench.rig.kernel import keep_on
from bench.rig.peers import connected
from bench.rig.processes import forked
from bench.rig.simulated import SimulatedExpert, simulated_expert
from bench.rig.transports import NATIVE, VARIABLES, add_transports
from bench.transport.bursts import BURST, UNCOUNTED, Burst, Cores, burst_of, places
from bench.transport.echo import EchoClient, echo_server, echoing
from bench.transport.floor import NoFloor, compiled_floor, floor_running
from bench.transport.layers import LayerClient
from bench.transport.tables import ECHO, FRAMES, IN_C, KIB, MIB, Case, fill, shown_size
from bench.transport.tensor import FrameClient, encode, frames_of, message_bytes
from services.model.checkpoint import Checkpoint
from services.router.peers.peer import ExpertPeer

SIZES = (4 * KIB, 64 * KIB, MIB, 8 * MIB)
NUM_SERVICES = (1, 2, 4, 8)
HIDDEN_SIZE = 2048  # a row of 4 KiB in bfloat16

COMPARED = (
    "the router's ExpertStream to real expert services (frames with checksums written and read, "
    "queued, batched, "
    "answered with as many bytes of rows; the device behind them is SIMULATED and takes no time) "
    "against a bare "
    "grpc.aio stream that echoes the same bytes with the same channel options, and against as many "
    "bytes there and back in C, with nothing around them: over TCP, over a UNIX socket, and "
    "through shared memory with a byte over a UNIX socket that says so. "
    "Native streams send as a step does, a layer's frames and replies as one exchange in compiled "
    "code, and also frame by frame, as where there are several lanes. Each server is "
    "a process of its own. "
    f"A sample is one exchange with all services at once. Variants take turns, each with {BURST} "
    f"exchanges one after the other, as a step has layers, of which the first {UNCOUNTED} are not "
    "counted. Waking a process on a core that idles takes longer than the rest of an echo, so "
    "everything is measured with the processes on any core, all on one, and the servers on another "
    "than the client."
)


@dataclass(frozen=True)
class Parties:
    """Everybody that exchanges, running: connected services by transport, the echo, the floor's
    program, and all servers' processes.
    """

    checkpoint: Checkpoint
    peers: Mapping[str, Sequence[ExpertPeer]]
    echo: EchoClient
    floor: Path | None
    pids: Sequence[int]


def num_rounds_of(num_bytes: int, num_services: int, *, quick: bool) -> int:
    """Rounds for about the same time in each case: fewer of larger ones, and never fewer than a
    spread takes.
    """
    budget = (2 if quick else 16) * MIB
    most = 8 if quick else 48
    return max(1 if quick else 4, min(most, budget // (num_bytes * num_services)))


async def measure(options: Namespace, stages: Stages, *, model: Path | None = None) -> Report:
    """Every size with every number of services."""
    report = Report("transport", COMPARED)
    cases = []
    async with AsyncExitStack() as stack:
        with stages.stage("starting servers"):
            floor = await _floor(report)
            parties = await _parties(options, model, floor, stack)
        for num_bytes, count in product(options.sizes, options.services):
            rounds = num_rounds_of(num_bytes, count, quick=options.quick)
            title = f"{shown_size(num_bytes)}, services: {count}"
            for cores in places():
                with stages.stage(f"{title}, cores: {cores.label}", rounds):
                    samples = await compare(parties, num_bytes, count, cores, rounds, stages)
                cases.append(Case(num_bytes, count, cores.label, samples))
    fill(report, cases, options.transports)
    return report


async def _floor(report: Report) -> Path | None:
    try:
        return await compiled_floor()
    except NoFloor as error:
        report.notes.append(f"what C does is left out: {error}")
        return None


async def _parties(
    options: Namespace, model: Path | None, floor: Path | None, stack: AsyncExitStack
) -> Parties:
    most = max(options.services)
    model = model or experts_only(hollow(HIDDEN_SIZE, 1, most, 1))
    checkpoint = Checkpoint.open(model)
    peers, pids = {}, []
    for transport in options.transports:
        experts = await stack.enter_async_context(
            forked(simulated_expert, [SimulatedExpert(model)] * most, VARIABLES[transport])
        )
        pids += [server.pid for server in experts]
        addresses = [server.address for server in experts]
        peers[transport] = await stack.enter_async_context(connected(checkpoint, addresses))
    echoes = await stack.enter_async_context(forked(echo_server, [None] * most))
    pids += [server.pid for server in echoes]
    echo = await stack.enter_async_context(echoing([server.address for server in echoes]))
    return Parties(checkpoint, peers, echo, floor, pids)


async def compare(
    parties: Parties,
    num_bytes: int,
    num_services: int,
    cores: Cores,
    num_rounds: int,
    stages: Stages,
) -> dict[str, list[float]]:
    """Milliseconds of each exchange, by variant."""
    usable = os.sched_getaffinity(0)
    frames = frames_of(parties.checkpoint, num_bytes)
    async with AsyncExitStack() as stack:
        stack.callback(keep_on, None, [os.getpid(), *parties.pids], usable)
        keep_on(cores.client, [os.getpid()], usable)
        keep_on(cores.servers, parties.pids, usable)
        variants = {
            **await _in_c(parties.floor, frames, num_services, cores, stack),
            **_bursts(parties, frames, num_services),
        }
        # A burst has warm-ups of its own.
        bursts = await interleaved(variants, num_rounds, after_round=stages.step, num_warm_ups=0)
    return {name: list(chain.from_iterable(taken)) for name, taken in bursts.items()}


async def _in_c(
    program: Path | None,
    frames: Sequence[torch.Tensor],
    num_services: int,
    cores: Cores,
    stack: AsyncExitStack,
) -> dict[str, Burst]:
    if program is None:
        return {}
    sizes = [message_bytes(rows) for rows in frames]
    bursts: dict[str, Burst] = {}
    for name, path in IN_C.items():
        client = await stack.enter_async_context(
            floor_running(program, path, sizes, num_services, cores)
        )
        bursts[name] = client.burst
    return bursts


def _bursts(
    parties: Parties, frames: Sequence[torch.Tensor], num_services: int
) -> dict[str, Burst]:
    messages = [encode(rows, 0, 0) for rows in frames]
    variants = {ECHO: burst_of(partial(parties.echo.exchange, messages, num_services))}
    for transport, all_peers in parties.peers.items():
        peers = all_peers[:num_services]
        by_frame = FrameClient(parties.checkpoint, peers)
        variants[FRAMES[transport]] = burst_of(partial(by_frame.exchange, frames))
        if transport == NATIVE and len(frames) == 1:  # more go frame by frame
            variants[NATIVE] = LayerClient(parties.checkpoint, peers, frames[0]).burst
    return variants


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("transport", COMPARED, ("--sizes 4096,1048576 --services 1,2",))
    add_numbers(parser, "sizes", SIZES, "bytes of rows each way, multiples of 4096")
    add_numbers(parser, "services", NUM_SERVICES, "numbers of services")
    add_transports(parser)
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
