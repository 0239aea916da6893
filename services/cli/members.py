"""Which processes a local cluster has, and with which flags each is started."""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from services.runtime.channels import split_address

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Member:
    """One process of the cluster: which service it is, where it listens, and the command that runs it."""

    name: str
    service: str
    address: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class ClusterPlan:
    """What a local cluster is to be; without `listen`, or with port 0, the gateway has any free port."""

    model: Path | None
    num_experts: int
    threads: int | None
    dtype: str
    batch_invariant: bool
    listen: str | None
    drain_seconds: float
    combine: str = "exact"
    wire_dtype: str = "auto"

    def members(self) -> list[Member]:
        """Expert services, router and gateway, on ports that are free now.

        Raises InvalidRequest when `listen` is no address.
        """
        *expert_ports, router_port, gateway_port = _free_ports(self.num_experts + 2)
        experts = [f"{LOOPBACK}:{port}" for port in expert_ports]
        router = f"{LOOPBACK}:{router_port}"
        gateway = self._gateway_address(gateway_port)
        members = [
            self._member(f"expert-{index}", "expert", address, *self._computing())
            for index, address in enumerate(experts)
        ]
        members.append(self._member("router", "router", router, *self._computing(), *self._dispatching(experts)))
        members.append(self._member("gateway", "gateway", gateway, f"--routers={router}"))
        return members

    def _gateway_address(self, free_port: int) -> str:
        listen = self.listen or f"{LOOPBACK}:0"
        _, port = split_address(listen)
        return listen if port else f"{listen.removesuffix('0')}{free_port}"

    def _member(self, name: str, service: str, address: str, *arguments: str) -> Member:
        shared = [f"--listen={address}", f"--drain-seconds={self.drain_seconds}"]
        if self.model is not None:
            shared.append(f"--model={self.model}")
        # -P: a folder called `services` where the user happens to be is none of ours.
        command = (sys.executable, "-P", "-m", f"services.{service}", *shared, *arguments)
        return Member(name, service, address, command)

    def _computing(self) -> Iterator[str]:
        yield f"--threads={self.threads or fair_threads(self.num_experts)}"
        yield f"--dtype={self.dtype}"
        if self.batch_invariant:
            yield "--batch-invariant"

    def _dispatching(self, experts: Sequence[str]) -> Iterator[str]:
        yield f"--experts={','.join(experts)}"
        yield f"--combine={self.combine}"
        yield f"--wire-dtype={self.wire_dtype}"


def fair_threads(num_experts: int) -> int:
    """Threads for each computing process: more than there are cores would wait for each other, spinning."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(2, num_experts))


def _free_ports(count: int) -> list[int]:
    # All are held until the last is found, so that no two are the same; a service that finds its port taken
    # in the moment between says so and the cluster does not start.
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
