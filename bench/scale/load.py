"""What bench.scale puts on simulated services: steps through some layers, some of them in flight at
once.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.layer.path import checked
from bench.rig.peers import decode_step, dispatcher_over, random_gate
from bench.rig.processes import Server, cpu_nanos
from bench.rig.simulated import DeviceTime
from services.model.checkpoint import Checkpoint
from services.router.engine.step import Step
from services.router.peers.peer import ExpertPeer


@dataclass(frozen=True)
class Load:
    """One point of the bench: how many of the services, and what each step brings. Every lane runs
    `num_steps`.

    With `rows_each` every service gets that many rows of each step, by one expert each; else
    `num_rows` rows go to `top_k` experts each, chosen at random.
    """

    num_services: int
    num_layers: int = 1
    concurrency: int = 1
    num_steps: int = 1
    rows_each: int | None = None
    num_rows: int = 64
    top_k: int = 8

    @property
    def total_rows(self) -> int:
        """Rows of one step."""
        return self.num_rows if self.rows_each is None else self.rows_each * self.num_services

    def gate(self, num_experts: int, seed: int) -> torch.Tensor:
        """Experts of each row, [rows, k]."""
        if self.rows_each is None:
            return random_gate(self.num_rows, num_experts, self.top_k, seed)
        return (torch.arange(self.total_rows) % self.num_services)[:, None]


@dataclass
class LoadSample:
    """One turn: every lane's steps. `step_ms` is what one of them took, `held_ms` the simulated
    devices' part of it:

    the slowest device of each layer, as if no other lane were in its way.
    """

    step_ms: float
    held_ms: float
    rows_per_second: float
    router_cpu_ms: float
    service_cpu_ms: float
    num_frames: int


class Fleet:
    """The first of the simulated services, for one load after another."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        time: DeviceTime,
        servers: Sequence[Server],
        peers: Sequence[ExpertPeer],
    ) -> None:
        self._checkpoint = checkpoint
        self._time = time
        self._servers = servers
        self._peers = peers

    async def run(self, load: Load) -> LoadSample:
        """One turn of the load; raises the error of the first row that could not be computed."""
        checkpoint, pids = (
            self._checkpoint,
            [server.pid for server in self._servers[: load.num_services]],
        )
        dispatcher = dispatcher_over(checkpoint, self._peers[: load.num_services])
        hidden = torch.zeros(load.total_rows, checkpoint.hidden_size, dtype=checkpoint.dtype)
        layers = checkpoint.moe_layers[: load.num_layers]
        gates = [load.gate(checkpoint.num_experts, seed) for seed in range(load.num_layers)]
        weights = torch.ones(gates[0].shape, dtype=checkpoint.dtype)
        # Made beforehand: a router has its sequences long before a layer, and for many of them.
        lanes_steps = [
            [decode_step(load.total_rows, lane) for _ in range(load.num_steps)]
            for lane in range(load.concurrency)
        ]

        async def run_lane(steps: Sequence[Step]) -> None:
            for step in steps:
                for layer, gate in zip(layers, gates, strict=True):
                    await dispatcher.compute(step, layer, hidden, gate, weights, None)
                checked(step)

        router_cpu, service_cpu = time.process_time_ns(), cpu_nanos(*pids)
        began = time.perf_counter_ns()
        async with asyncio.TaskGroup() as lanes:
            for steps in lanes_steps:
                lanes.create_task(run_lane(steps))
        nanos = time.perf_counter_ns() - began
        return LoadSample(
            step_ms=nanos / load.num_steps / 1e6,
            held_ms=sum(self._held_nanos(load, gate) for gate in gates) / 1e6,
            rows_per_second=load.total_rows * load.concurrency * load.num_steps / nanos * 1e9,
            router_cpu_ms=(time.process_time_ns() - router_cpu) / 1e6,
            service_cpu_ms=(cpu_nanos(*pids) - service_cpu) / 1e6,
            num_frames=load.num_services * load.num_layers * load.concurrency * load.num_steps,
        )

    def _held_nanos(self, load: Load, gate: torch.Tensor) -> int:
        """What the slowest device takes for one layer of one step."""
        experts = gate.reshape(-1)
        slowest = 0
        for service in range(load.num_services):
            own = experts[experts % load.num_services == service]
            slowest = max(slowest, self._time.nanos(len(own.unique()), len(own)) if len(own) else 0)
        return slowest
