"""Which ports a local cluster takes where its usual ones are somebody else's."""

import socket

import pytest

from services.cli.members import ClusterPlan
from services.cli.ports import USUAL_PORTS, refuse_taken, to_call, usual_or_next
from services.wire.errors import BadState


def test_a_taken_port_gives_way_to_the_next_free_one_and_that_is_said() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address = f"127.0.0.1:{port}"
        chosen = usual_or_next(address, "HTTP", said.append)
        with pytest.raises(BadState, match=f"cannot listen on {address}: it is taken"):
            refuse_taken(address)
    assert int(chosen.rpartition(":")[2]) > port
    assert said == [f"{address} is taken by somebody else: HTTP is at {chosen}"]
    assert usual_or_next(address, "HTTP", said.append) == address
    refuse_taken(address)
    assert len(said) == 1


def test_what_is_usual_for_another_service_is_passed_over() -> None:
    said: list[str] = []
    first = min(USUAL_PORTS)
    try:
        taken = socket.create_server(("127.0.0.1", first))
    except OSError:
        taken = socket.socket()  # somebody else has it, which serves as well
    with taken:
        chosen = usual_or_next(f"127.0.0.1:{first}", "the gateway", said.append)
    assert int(chosen.rpartition(":")[2]) not in USUAL_PORTS


def test_two_services_that_give_way_do_not_take_one_port() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        first = usual_or_next(address, "the gateway", said.append)
        second = usual_or_next(address, "the router", said.append, [first])
    assert len({address, first, second}) == 3
    any_port = "127.0.0.1:0"
    assert usual_or_next(any_port, "HTTP", said.append, [any_port]) == any_port
    assert len(said) == 2


def test_an_address_of_another_machine_is_refused() -> None:
    for check in (refuse_taken, lambda address: usual_or_next(address, "HTTP", print)):
        with pytest.raises(BadState, match=r"cannot listen on 192\.0\.2\.1:8000"):
            check("192.0.2.1:8000")


def test_the_last_port_has_none_after_it() -> None:
    try:
        taken = socket.create_server(("127.0.0.1", 65_535))
    except OSError:
        taken = socket.socket()
    with taken, pytest.raises(BadState, match="nor on the ports after it"):
        usual_or_next("127.0.0.1:65535", "HTTP", print)


def test_all_addresses_are_called_by_the_loopback_one() -> None:
    called = [to_call(one) for one in ("0.0.0.0:1", "[::]:2", "10.0.0.7:3")]
    assert called == ["127.0.0.1:1", "[::1]:2", "10.0.0.7:3"]


def test_the_first_router_has_the_address_that_it_is_given() -> None:
    plan = ClusterPlan(
        model=None,
        num_experts=1,
        num_routers=2,
        threads=1,
        drain_seconds=1.0,
        router_listen="127.0.0.1:50052",
    )
    _, first, second, gateway = plan.members()
    assert first.address == "127.0.0.1:50052" != second.address
    assert f"--routers={first.address},{second.address}" in gateway.command
