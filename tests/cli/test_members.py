"""What a local cluster consists of."""

import os
from pathlib import Path
from typing import Any

import pytest

from services.cli.bench.settings import BenchSettings
from services.cli.members import ClusterPlan, expert_threads
from services.cli.settings import GenerateSettings, ServeSettings
from services.expert.settings import ExpertSettings
from services.gateway.settings import GatewaySettings
from services.router.settings import RouterSettings
from services.runtime.settings import load
from services.wire.errors import InvalidRequest

Command = type[ServeSettings | GenerateSettings | BenchSettings]
COMMANDS = (ServeSettings, GenerateSettings, BenchSettings)
SETTINGS: dict[str, Any] = {
    "expert": ExpertSettings,
    "router": RouterSettings,
    "gateway": GatewaySettings,
}


def plan(**changes: Any) -> ClusterPlan:
    whole: dict[str, Any] = {
        "model": None,
        "num_experts": 3,
        "threads": 1,
        "dtype": "float32",
        "batch_invariant": True,
        "listen": None,
        "drain_seconds": 5.0,
    }
    return ClusterPlan(**whole | changes)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_command_is_in_its_plan(command: Command) -> None:
    cluster = "--model folder --experts 3 --routers 2 --coverage 2 --threads 2"
    numerics = "--dtype bfloat16 --combine partial --wire-dtype bfloat16"
    assert planned(command, *cluster.split(), *numerics.split()) == ClusterPlan(
        model=Path("folder"),
        num_experts=3,
        num_routers=2,
        threads=2,
        drain_seconds=5.0,
        dtype="bfloat16",
        combine="partial",
        wire_dtype="bfloat16",
        coverage=2,
    )
    assert planned(command, "--batch-invariant").batch_invariant
    assert not planned(command, "--no-rebalance").rebalance
    assert planned(command, "--expert-memory", "3GiB").expert_memory == 3 << 30
    assert planned(command, "--generation-config", "ignore").generation_config == "ignore"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_starts_the_same_cluster_by_default(command: Command) -> None:
    assert planned(command) == ClusterPlan(
        model=None, num_experts=2, threads=None, drain_seconds=5.0
    )


def planned(command: Command, *flags: str) -> ClusterPlan:
    prompt = ("Once",) if command is GenerateSettings else ()
    return ClusterPlan.from_settings(load(command, (*flags, *prompt), "moesaic"), drain_seconds=5.0)


def test_a_cluster_is_expert_services_a_router_and_a_gateway() -> None:
    members = plan().members()
    assert [one.name for one in members] == [
        "expert-0",
        "expert-1",
        "expert-2",
        "router",
        "gateway",
    ]
    assert len({one.address for one in members}) == len(members)


def test_the_flags_of_every_member_are_accepted_by_its_settings(tmp_path: Path) -> None:
    for member in plan(model=tmp_path, listen="127.0.0.1:50051").members():
        arguments = member.command[member.command.index(f"services.{member.service}") + 1 :]
        settings = load(SETTINGS[member.service], arguments, member.name)
        assert settings.listen == member.address
        assert settings.model == tmp_path
        assert settings.drain_seconds == 5.0
        if member.service != "gateway":
            assert (settings.dtype, settings.threads, settings.batch_invariant) == (
                "float32",
                1,
                True,
            )


def test_the_router_is_told_every_expert_service_and_the_gateway_the_router() -> None:
    *experts, router, gateway = plan().members()
    assert f"--experts={','.join(one.address for one in experts)}" in router.command
    assert f"--routers={router.address}" in gateway.command
    assert "--generation-config=auto" in gateway.command


def test_several_routers_have_the_same_experts_and_the_gateway_has_them_all() -> None:
    *_, one, two, gateway = plan(num_routers=2).members()
    assert [one.name, two.name] == ["router-0", "router-1"]
    assert one.command[-6:] == two.command[-6:]
    assert f"--routers={one.address},{two.address}" in gateway.command


def test_the_gateway_listens_where_it_is_told() -> None:
    assert plan(listen="0.0.0.0:50051").members()[-1].address == "0.0.0.0:50051"


def test_http_is_served_where_it_is_told_and_else_nowhere() -> None:
    assert plan().members()[-1].http == ""
    assert plan(http_listen="0.0.0.0:8000").members()[-1].http == "0.0.0.0:8000"
    *others, gateway = plan(http_listen="127.0.0.1:0", trace_url="http://x").members()
    assert int(gateway.http.partition(":")[2]) > 0
    assert gateway.http not in {one.address for one in (*others, gateway)}
    assert "--trace-url=http://x" in gateway.command


def test_port_nought_is_any_free_port() -> None:
    host, _, port = plan(listen="127.0.0.1:0").members()[-1].address.partition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


def test_what_is_no_address_to_listen_on_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="host:port"):
        plan(listen="50051").members()


def test_the_expert_services_share_the_cores_and_the_router_of_a_large_model_uses_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert expert_threads(4) == 4
    assert expert_threads(1) == 16
    assert expert_threads(32) == 1
    *experts, router, _ = plan(threads=None).members()
    assert "--threads=1" in router.command
    assert all("--threads=5" in one.command for one in experts)
    for number in range(2):
        with (tmp_path / f"model-{number}.safetensors").open("wb") as file:
            file.truncate(200 << 20)
    assert "--threads=16" in plan(threads=None, model=tmp_path).members()[-2].command


def test_the_router_alone_is_told_how_to_host_experts() -> None:
    *others, router, gateway = plan(coverage=2, rebalance=False).members()
    arguments = router.command[router.command.index("services.router") + 1 :]
    settings = load(RouterSettings, arguments, "router")
    assert (settings.coverage, settings.rebalance) == (2, False)
    assert not [flag for one in (*others, gateway) for flag in one.command if "coverage" in flag]


def test_the_router_alone_is_told_how_rows_are_combined_and_travel() -> None:
    *experts, router, gateway = plan(
        batch_invariant=False, combine="partial", wire_dtype="bfloat16"
    ).members()
    arguments = router.command[router.command.index("services.router") + 1 :]
    settings = load(RouterSettings, arguments, "router")
    assert (settings.combine, settings.wire_dtype) == ("partial", "bfloat16")
    assert not [
        flag
        for one in (*experts, gateway)
        for flag in one.command
        if "combine" in flag or "wire" in flag
    ]
