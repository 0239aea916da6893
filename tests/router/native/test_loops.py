"""Native transports on the loop that services run on, and on the standard library's."""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from services.router.peers.native_transport import NativeTransport
from services.runtime.connected_socket import connected_socket
from services.runtime.event_loop import NEW_LOOP, NewLoop
from services.wire.errors import Unavailable
from tests.router.native import test_messages
from tests.router.native.raw_service import BEGINNING, tell
from tests.router.transports import NAME, NATIVE


async def is_told_of_a_connection_that_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        made = await connected_socket("127.0.0.1:1", port, timeout_seconds=10)
        theirs, _ = listening.accept()
    transport = NativeTransport(made, "a:1", NAME)
    theirs.setblocking(False)
    await tell(theirs, BEGINNING)
    await transport.begun(10)
    assert transport.try_send(b"f" * (1 << 24))  # some of it waits for the socket
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(Unavailable, match="broke"):
        async with asyncio.timeout(10):
            await transport.deliver(lambda *_: None)


async def is_refused_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(Unavailable, match=f"cannot connect to port {port} of localhost"):
        await connected_socket("localhost:1", port, timeout_seconds=10)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, NEW_LOOP], ids=["asyncio", "ours"])
@pytest.mark.parametrize(
    "scenario",
    [
        is_told_of_a_connection_that_is_reset,
        is_refused_where_nobody_listens,
        test_messages.test_a_service_that_reads_nothing_is_sent_no_more_than_one_message_ahead,
        test_messages.test_pings_are_answered_and_messages_come_in_any_pieces,
        test_messages.test_who_waits_to_send_hears_that_the_call_is_over,
    ],
)
@NATIVE
def test_a_transport(new_loop: NewLoop, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
