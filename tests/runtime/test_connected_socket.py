"""A connection to a service's port is made and kept as gRPC's channels have theirs."""

import asyncio
import socket
from typing import Any

import pytest

from services.runtime.channels import ANSWER_SECONDS, SILENCE_SECONDS
from services.runtime.connected_socket import VANISHED_SECONDS, connected_socket
from services.wire.errors import Unavailable
from tests.router.transports import NATIVE

pytestmark = NATIVE


async def test_an_address_of_ipv6_is_connected_to() -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("the loopback has no IPv6 here")
    with listening:
        port = listening.getsockname()[1]
        with await connected_socket("[::1]:1", port, timeout_seconds=10) as made:
            assert made.getpeername()[:2] == ("::1", port)


async def test_of_a_names_addresses_the_next_is_tried_when_one_does_not_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def two_addresses(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in ("127.0.0.3", "127.0.0.1")
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two_addresses)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with await connected_socket("some-name:1", port, timeout_seconds=10) as made:
            assert made.getpeername() == ("127.0.0.1", port)


async def test_a_name_that_nobody_answers_for_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    with pytest.raises(Unavailable, match="cannot connect to port 7 of some-name: no answer"):
        await connected_socket("some-name:1", 7, timeout_seconds=0.01)


async def test_a_peer_that_vanished_is_noticed_as_soon_as_grpc_notices_one() -> None:
    allowed = round(1000 * (SILENCE_SECONDS + ANSWER_SECONDS))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = await connected_socket("127.0.0.1:1", listening.getsockname()[1], timeout_seconds=10)
    with made:

        def option(name: int) -> int:
            return made.getsockopt(socket.IPPROTO_TCP, name)

        assert option(socket.TCP_NODELAY)
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        # Idle: the kernel gives a peer up at the first question after the time that it has, once
        # one was left unanswered.
        asked = option(socket.TCP_KEEPIDLE) + option(socket.TCP_KEEPINTVL)
        assert asked * 1000 <= allowed
        assert option(socket.TCP_USER_TIMEOUT) == VANISHED_SECONDS * 1000 <= allowed
