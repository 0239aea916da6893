"""Which processes a local cluster has, and with which flags each is started."""

import random
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from services.cli.settings import ClusterSettings
from services.runtime.channels import split_address
from services.runtime.cores import num_cores
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.runtime.settings import load, refuse

# Where each listens in a cluster of this machine, whatever the environment says.
SERVICES = {
    "gateway": ("--listen=127.0.0.1:0", "--http-listen=off"),
    "router": ("--listen=127.0.0.1:0",),
    "expert": ("--listen=127.0.0.1:0",),
    "tracing": ("--listen=127.0.0.1:0", "--http=127.0.0.1:0"),
}
LOOPBACK = "127.0.0.1"
# Settings by which a process would keep out the others, which are not given what they would show.
KEEPING_OUT = ("tls_certificate", "tokens")
# Below those that a system gives to outgoing connections and to whoever asks for any port: until
# the service listens, some seconds later, nobody else is given its port.
CHOSEN_PORTS = range(20_000, 32_768)
# What may be the name of one, owner and all.
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# Weights of a model whose router computes on every core.
DIVIDED_BYTES = 256 << 20


@dataclass(frozen=True)
class Member:
    """One process of the cluster: which service it is, where it listens, and the command that runs
    it, which ends with the service's flags.
    """

    name: str
    service: str
    address: str
    command: tuple[str, ...]
    flags: tuple[str, ...] = ()

    @property
    def http(self) -> str:
        """Where it serves HTTP; empty for nowhere."""
        flags = (one.partition("=") for one in self.command)
        addresses = [value for flag, _, value in flags if flag == "--http-listen"]
        return "" if addresses in ([], ["off"]) else addresses[0]

    @classmethod
    def of(cls, name: str, service: str, address: str, *flags: str) -> "Member":
        """The member that listens at the address, with these flags besides."""
        # -P: a folder called `services` where the user happens to be is none of ours.
        flags = (f"--listen={address}", *flags)
        command = (sys.executable, "-P", "-m", f"services.{service}", *flags)
        return cls(name, service, address, command, flags)


@dataclass(frozen=True)
class ClusterPlan:
    """What a local cluster is to be; without `listen`, or with port 0, the gateway has any free
    port, as has a router beyond the first, which listens at `router_listen`. It serves HTTP where
    `http_listen` says, likewise, and not at all where that is empty.
    """

    model: Path | None
    num_experts: int
    threads: int | None
    drain_seconds: float
    listen: str | None = None
    router_listen: str | None = None
    http_listen: str = ""
    trace_url: str = ""
    metrics_aliases: str | None = None
    trace_detail: str = ""  # empty for what the routers do by themselves
    num_routers: int = 1
    insecure: bool = False
    dtype: str = "auto"
    batch_invariant: bool = False
    combine: str = "exact"
    wire_dtype: str = "auto"
    coverage: int = 1
    rebalance: bool = True
    generation_config: str = "auto"
    expert_memory: int | None = None  # bytes, of each service
    # Variables of OpenTelemetry's that the processes have beside and before the environment's own.
    telemetry: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_settings(
        cls,
        settings: ClusterSettings,
        *,
        drain_seconds: float,
        listen: str | None = None,
        router_listen: str | None = None,
        http_listen: str = "",
        metrics_aliases: str | None = None,
        insecure: bool = False,
    ) -> "ClusterPlan":
        """The cluster that a command's settings describe."""
        return cls(
            model=settings.model,
            num_experts=settings.experts,
            num_routers=settings.routers,
            threads=settings.threads,
            drain_seconds=drain_seconds,
            listen=listen,
            router_listen=router_listen,
            http_listen=http_listen,
            metrics_aliases=metrics_aliases,
            insecure=insecure,
            dtype=settings.dtype,
            batch_invariant=settings.batch_invariant,
            combine=settings.combine,
            wire_dtype=settings.wire_dtype,
            coverage=settings.coverage,
            rebalance=settings.rebalance,
            generation_config=settings.generation_config,
            expert_memory=settings.expert_memory,
        )

    @property
    def num_members(self) -> int:
        """How many processes it has."""
        return self.num_experts + self.num_routers + 1

    def members(self) -> list[Member]:
        """Expert services, routers and gateway, on ports that are free now.

        Raises InvalidRequest when `listen` is no address.
        """
        *addresses, free_for_http = free_addresses(self.num_members + 1)
        experts, routers = addresses[: self.num_experts], addresses[self.num_experts : -1]
        free = addresses[-1]
        if self.router_listen is not None:
            routers[0] = chosen_address(self.router_listen, routers[0])
        gateway = self._gateway_address(free)
        each = expert_threads(self.num_experts)
        members = [
            self._member(
                *(f"expert-{index}", "expert", address),
                *(*self._computing(each), *self._hosting()),
            )
            for index, address in enumerate(experts)
        ]
        each = max(1, router_threads(self.model) // self.num_routers)
        members += [
            self._member(
                *("router" if self.num_routers == 1 else f"router-{index}", "router", address),
                *(*self._computing(each), *self._dispatching(experts)),
            )
            for index, address in enumerate(routers)
        ]
        flags = [
            f"--routers={','.join(routers)}",
            f"--generation-config={self.generation_config}",
            f"--http-listen={self._http_address(free_for_http)}",
        ]
        if self.trace_url:
            flags.append(f"--trace-url={self.trace_url}")
        if self.metrics_aliases is not None:
            flags.append(f"--metrics-aliases={self.metrics_aliases}")
        if self.insecure:
            flags.append("--insecure")
        members.append(self._member("gateway", "gateway", gateway, *flags))
        return members

    def _gateway_address(self, free: str) -> str:
        return free if self.listen is None else chosen_address(self.listen, free)

    def _http_address(self, free: str) -> str:
        return chosen_address(self.http_listen, free) if self.http_listen else "off"

    def _member(self, name: str, service: str, address: str, *flags: str) -> Member:
        shared = [f"--drain-seconds={self.drain_seconds}"]
        if self.model is not None:
            shared.append(f"--model={self.model}")
        return Member.of(name, service, address, *shared, *flags)

    def _computing(self, threads: int) -> Iterator[str]:
        yield f"--threads={self.threads or threads}"
        yield f"--dtype={self.dtype}"
        if self.batch_invariant:
            yield "--batch-invariant"

    def _hosting(self) -> Iterator[str]:
        if self.expert_memory is not None:
            yield f"--expert-memory={self.expert_memory}"

    def _dispatching(self, experts: Sequence[str]) -> Iterator[str]:
        yield f"--experts={','.join(experts)}"
        yield f"--combine={self.combine}"
        yield f"--wire-dtype={self.wire_dtype}"
        yield f"--coverage={self.coverage}"
        if self.trace_detail:
            yield f"--trace-detail={self.trace_detail}"
        if not self.rebalance:
            yield "--no-rebalance"


def check_settings(model: Path | None = None) -> None:
    """Exit with 2, after a line for each, where a variable or the file has a value that a service
    would refuse, or that would keep the cluster's processes from each other; or where the model is
    no checkpoint's folder.
    """
    if model is not None and (complaint := complaint_of_model(model)):
        refuse("moesaic", [f"--model: {complaint}"])
    for service, listening in SERVICES.items():
        module = import_module(f"services.{service}.settings")
        settings_class = getattr(module, f"{service.title()}Settings")
        settings = load(settings_class, listening, f"moesaic {service}")
        complaints = [
            f"MOESAIC_{service}_{name}".upper() + ", or its like in the file: a local cluster has "
            "neither TLS nor tokens; leave it out, or run each service by itself"
            for name in KEEPING_OUT
            if getattr(settings, name, None) is not None
        ]
        if complaints:
            refuse(f"moesaic {service}", complaints)


def complaint_of_model(model: Path) -> str | None:
    """Why no service could read the checkpoint, as far as that is seen before any starts."""
    if not model.is_dir():
        name = str(model)
        hint = (
            f"; to get it from Hugging Face: hf download {name} --local-dir {model.name}"
            if REPOSITORY.fullmatch(name)
            else ""
        )
        return f"there is no folder {name}{hint}"
    return None if (model / "config.json").is_file() else f"there is no config.json in {model}"


def chosen_address(listen: str, free: str) -> str:
    """`listen`, with the port of the `free` address where its own is 0. Raises InvalidRequest for
    no address.
    """
    _, port = split_address(listen)
    return listen if port else f"{listen.rpartition(':')[0]}:{split_address(free)[1]}"


def expert_threads(num_experts: int) -> int:
    """Threads for each expert service: all compute at the same time."""
    return max(1, num_cores() // num_experts)


def router_threads(model: Path | None) -> int:
    """Threads for the router, which computes while the expert services wait: one for every core,
    unless the model is so small that its computations are over before a second thread has woken.
    """
    files = filter(Path.is_file, (model or EMBEDDED_MODEL).glob("*.safetensors"))
    num_bytes = sum(file.stat().st_size for file in files)
    return num_cores() if num_bytes >= DIVIDED_BYTES else 1


def free_addresses(count: int) -> list[str]:
    """Addresses of this machine that nobody listens on at the moment, all different.

    A service that finds its port taken in the moment between says so, and the cluster does not
    start.
    """
    # All are held until the last is found, so that no two are the same.
    with ExitStack() as held:
        addresses: list[str] = []
        while len(addresses) < count:
            probe, port = held.enter_context(socket.socket()), random.choice(CHOSEN_PORTS)
            with suppress(OSError):  # it is taken
                probe.bind((LOOPBACK, port))
                addresses.append(f"{LOOPBACK}:{port}")
        return addresses
