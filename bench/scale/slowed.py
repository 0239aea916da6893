"""What a step takes while one of two replicas is slowed, with and without copies of late frames."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import spread_of
from bench.harness.table import Table
from bench.layer.path import checked
from bench.rig.peers import connected, decode_step, random_gate
from bench.rig.processes import Server, forked
from bench.rig.simulated import DeviceTime, SimulatedExpert, simulated_expert
from services.model.checkpoint import Checkpoint
from services.router.dispatch.combine import ExactCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.placement import Placement
from services.router.peers.peer import ExpertPeer

NUM_ROWS, TOP_K, NUM_GATES = 4, 2, 64
SLOWER = 20
STOPPED_SECONDS, EVERY_SECONDS = 0.015, 0.15
SHARES = {"without copies": 0.0, "with copies": 0.02}
HEADINGS = ("two replicas", "frames", "step ms, p50", "p99", "p99 ÷ none slowed", "copies, %")


@dataclass
class SlowedSample:
    """Some hundred steps: what each took, and copies among frames."""

    step_ms: list[float] = field(default_factory=list)
    num_frames: int = 0
    num_copies: int = 0


class Replicas:
    """Two services with every expert, and a dispatcher over them for each share of copies."""

    def __init__(self, checkpoint: Checkpoint, peers: Sequence[ExpertPeer]) -> None:
        self._checkpoint = checkpoint
        ready = np.ones((len(peers), checkpoint.num_experts), dtype=bool)
        self._placement = Placement(peers, dict.fromkeys(checkpoint.moe_layers, ready))
        self._dispatchers = {share: self._dispatcher(share) for share in SHARES.values()}

    async def run(self, share: float, num_steps: int) -> SlowedSample:
        """So many steps, with copies of late frames up to that share."""
        checkpoint, dispatcher = self._checkpoint, self._dispatchers[share]
        hidden = torch.zeros(NUM_ROWS, checkpoint.hidden_size, dtype=checkpoint.dtype)
        weights = torch.ones(NUM_ROWS, TOP_K, dtype=checkpoint.dtype)
        gates = [random_gate(NUM_ROWS, checkpoint.num_experts, TOP_K, n) for n in range(NUM_GATES)]
        sample = SlowedSample()
        for number in range(num_steps):
            step, began = decode_step(NUM_ROWS), time.perf_counter_ns()
            for layer in checkpoint.moe_layers:
                gate = gates[(number + layer) % NUM_GATES]
                await dispatcher.compute(step, layer, hidden, gate, weights, None)
                sample.num_frames += len(self._placement.services)
            sample.step_ms.append((time.perf_counter_ns() - began) / 1e6)
            sample.num_copies += step.clock.hedges.total()
            checked(step)
        return sample

    def _dispatcher(self, share: float) -> Dispatcher:
        dispatcher = Dispatcher(
            num_experts=self._checkpoint.num_experts,
            hidden_size=self._checkpoint.hidden_size,
            wire_dtype=self._checkpoint.dtype,
            combine=ExactCombine(),
            hedge_share=share,
        )
        dispatcher.place(self._placement)
        return dispatcher


async def add_slowed(
    report: Report, stages: Stages, model: Path, usual: DeviceTime, num_rounds: int, num_steps: int
) -> None:
    """A row for none slowed, one that is slower all the time, and one that is stopped now and
    then.
    """
    table = Table(
        f"one of two replicas is slowed; SIMULATED devices hold a reply {usual}", HEADINGS
    )
    slow = DeviceTime(*(SLOWER * part for part in usual.parts))
    cases = {
        "none slowed": (usual, 0.0),
        f"one takes {SLOWER} times as long": (slow, 0.0),
        f"one stopped {STOPPED_SECONDS:g} s of every {EVERY_SECONDS:g} s": (usual, STOPPED_SECONDS),
    }
    undisturbed: dict[str, float] = {}
    for name, (second, seconds) in cases.items():
        with stages.stage(f"{name}: two replicas", num_rounds + 1):
            async with _replicas(model, [usual, second], seconds) as made:
                variants = {
                    label: partial(made.run, share, num_steps) for label, share in SHARES.items()
                }
                samples = await interleaved(variants, num_rounds, after_round=stages.step)
        for label, taken in samples.items():
            p99 = spread_of([float(np.percentile(one.step_ms, 99)) for one in taken])
            base = undisturbed.setdefault(label, p99.median)
            num_frames = sum(one.num_frames for one in taken)
            copies = 100 * sum(one.num_copies for one in taken) / num_frames
            p50 = spread_of([float(np.median(one.step_ms)) for one in taken])
            table.add(name, label, p50, p99, p99.scaled(1 / base), copies)
            report.samples[f"slowed, {name}, {label}, step ms"] = [one.step_ms for one in taken]
    report.tables.append(table)


@asynccontextmanager
async def _replicas(
    model: Path, times: Sequence[DeviceTime], stopped_seconds: float
) -> AsyncIterator[Replicas]:
    checkpoint, first = Checkpoint.open(model), SimulatedExpert(model)
    experts = [replace(first, time=one) for one in times]
    async with (
        forked(simulated_expert, experts, {}) as servers,
        connected(checkpoint, [server.address for server in servers]) as peers,
    ):
        stopping = asyncio.create_task(_stop_often(servers[-1], stopped_seconds))
        try:
            yield Replicas(checkpoint, peers)
        finally:
            stopping.cancel()
            os.kill(servers[-1].pid, signal.SIGCONT)


async def _stop_often(server: Server, seconds: float) -> None:
    while seconds:
        await asyncio.sleep(EVERY_SECONDS - seconds)
        os.kill(server.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(server.pid, signal.SIGCONT)
