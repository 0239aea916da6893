"""The transports that a bench is asked for, and the environment that its servers get."""

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.harness.failure import BenchFailed
from bench.rig.processes import forked
from bench.rig.transports import (
    GRPC,
    NATIVE,
    TLS,
    VARIABLE,
    VARIABLES,
    add_transports,
    transports,
)


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@asynccontextmanager
async def environment_server(expected: str | None) -> AsyncIterator[int]:
    """Serves nothing; its port says whether the environment is what it should be."""
    if expected == "broken":
        raise ValueError("a server that does not come up")
    yield int(os.environ.get(VARIABLE) == expected)


def test_both_transports_are_compared_unless_some_are_named() -> None:
    parser = ArgumentParser()
    add_transports(parser)
    assert parser.parse_args([]).transports == (GRPC, NATIVE)
    assert parser.parse_args(["--transports", "native, grpc,native"]).transports == (NATIVE, GRPC)
    assert VARIABLE in parser.format_help()


def test_a_bench_that_runs_whole_clusters_has_them_with_tls_too() -> None:
    parser = ArgumentParser()
    add_transports(parser, has_tls=True)
    assert parser.parse_args(["--transports", "native,tls"]).transports == (NATIVE, TLS)


@pytest.mark.parametrize("text", ["", "grpc,", "aio", "tls"])
def test_another_transport_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="no list of grpc and native"):
        transports(text)


def test_an_environment_that_decides_for_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    with pytest.raises(ArgumentTypeError, match="unset it, or give --transports grpc"):
        transports("grpc,native")
    assert transports("grpc") == (GRPC,)


@pytest.mark.parametrize(("name", "expected"), [(GRPC, "off"), (NATIVE, None)])
async def test_forked_servers_have_the_environment_of_their_transport(
    name: str, expected: str | None
) -> None:
    async with forked(environment_server, [expected] * 2, VARIABLES[name]) as servers:
        assert [server.address for server in servers] == ["127.0.0.1:1"] * 2
        assert len({server.pid for server in servers} - {os.getpid()}) == 2


async def test_a_server_that_ends_before_it_serves_fails_the_bench() -> None:
    with pytest.raises(BenchFailed, match="ended before it served"):
        async with forked(environment_server, [None, "broken"]):
            pass
