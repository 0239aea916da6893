"""A TCP connection to a service's port, made and kept as gRPC's channels have theirs."""

import asyncio
import socket
from typing import Any

from services.runtime.host_port import split_host_port
from services.wire.errors import Unavailable

# A peer that vanished without a word is noticed within fifteen seconds, idle or not, as on the
# channels of gRPC: idle, it is asked after ten and again five later; else it has that time to
# confirm what was sent.
IDLE_SECONDS, ASK_AGAIN_SECONDS, VANISHED_SECONDS = 10, 5, 15


async def connected_socket(address: str, port: int, *, timeout_seconds: float) -> socket.socket:
    """A non-blocking socket connected to `port` of the host of `address`, whichever of its
    addresses answers first.

    Raises Unavailable when none does in time.
    """
    host, _ = split_host_port(address)
    try:
        async with asyncio.timeout(timeout_seconds):
            records = await _records_of(host, port)
            return await _first_of(records, timeout_seconds / len(records))
    except (OSError, OverflowError, UnicodeError) as error:  # a timeout is an OSError
        reason = str(error) or "no answer in time"
        raise Unavailable(f"cannot connect to port {port} of {host}: {reason}") from error


async def _records_of(host: str, port: int) -> list[tuple[Any, ...]]:
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric)
    except socket.gaierror:  # a name, which a thread has to look up
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _first_of(records: list[tuple[Any, ...]], seconds_each: float) -> socket.socket:
    """Try one after the other; the last one's failure stands for all."""
    *others, last = records
    for record in others:
        try:
            return await _connected(record, seconds_each)
        except OSError:
            pass
    return await _connected(last, seconds_each)


async def _connected(record: tuple[Any, ...], timeout_seconds: float) -> socket.socket:
    family, kind, protocol, _, address = record
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        _prepare(made)
        async with asyncio.timeout(timeout_seconds):
            await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


def _prepare(made: socket.socket) -> None:
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ASK_AGAIN_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_SECONDS * 1000)
