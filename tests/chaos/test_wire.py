"""The relay that the chaos tests put in front of an expert service, between two plain TCP ends."""

import asyncio
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.hosting.relay import DATA_FRAME, HEAD_BYTES, PREFACE_BYTES, Damage, Frames
from bench.hosting.wire import Wire

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
RESET = (ConnectionResetError, asyncio.IncompleteReadError)


class Line:
    """A service, the wire in front of it, and whoever connects."""

    def __init__(self) -> None:
        self.wire: Wire
        self.port: int
        self._accepted: asyncio.Queue[Ends] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[tuple["Line", Wire]]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.wire = await Wire.start(f"127.0.0.1:{self.port}")
        try:
            yield self, self.wire
        finally:
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(
                *(writer.wait_closed() for writer in self._writers), return_exceptions=True
            )
            await self.wire.close()
            server.close()

    async def router_end(self) -> Ends:
        host, _, port = self.wire.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self._writers.append(writer)
        return reader, writer

    async def both_ends(self) -> tuple[Ends, Ends]:
        """Both ends of a new connection: the router's, the service's."""
        ours = await self.router_end()
        ours[1].write(b"hello")
        theirs = await self._accepted.get()
        assert await theirs[0].readexactly(5) == b"hello"
        return ours, theirs

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await self._accepted.put((reader, writer))


def frame(payload: bytes, kind: int = DATA_FRAME) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind]) + bytes(5) + payload


async def test_what_passes_is_handed_on_both_ways() -> None:
    async with Line().laid() as (line, _):
        ours, theirs = await line.both_ends()
        theirs[1].write(b"answer" * 100_000)
        assert await ours[0].readexactly(600_000) == b"answer" * 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback has one address here")
async def test_a_port_that_a_service_tells_of_is_relayed_under_its_number() -> None:
    async with Line().laid() as (line, first):
        line.wire = wire = await Wire.start("127.0.0.1:9", line.port)
        wire.address = f"{wire.address.rpartition(':')[0]}:{line.port}"
        try:
            await line.both_ends()
            await wire.cut()
            reader, _ = await line.router_end()
            with pytest.raises(RESET):
                await reader.readexactly(1)
        finally:
            await wire.close()
            line.wire = first


async def test_an_end_that_leaves_ends_the_other() -> None:
    async with Line().laid() as (line, _):
        ours, theirs = await line.both_ends()
        theirs[1].close()
        with pytest.raises(RESET):
            await ours[0].readexactly(1)


async def test_a_cut_resets_connections_until_restored() -> None:
    async with Line().laid() as (line, wire):
        ours, _ = await line.both_ends()
        await wire.cut()
        with pytest.raises(RESET):
            await ours[0].readexactly(1)
        reader, _ = await line.router_end()
        with pytest.raises(RESET):
            await reader.readexactly(1)
        await wire.restore()
        await line.both_ends()


async def test_what_is_held_comes_when_restored() -> None:
    async with Line().laid() as (line, wire):
        ours, theirs = await line.both_ends()
        await wire.hold()
        theirs[1].write(b"late")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ours[0].readexactly(1)
        await wire.restore()
        assert await ours[0].readexactly(4) == b"late"


async def test_delayed_bytes_are_under_way_together() -> None:
    async with Line().laid() as (line, wire):
        ours, theirs = await line.both_ends()
        await wire.delay(0.3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        theirs[1].write(b"one")
        await theirs[1].drain()
        await wire.delay(0.3)  # answered when the first has been read, and is under way
        theirs[1].write(b"two")
        assert await ours[0].readexactly(3) == b"one"
        assert loop.time() - began >= 0.3
        await wire.restore()
        assert await ours[0].readexactly(3) == b"two"


async def test_a_truncated_reply_ends_in_the_middle_and_new_connections_are_whole() -> None:
    async with Line().laid() as (line, wire):
        ours, theirs = await line.both_ends()
        await wire.truncate(3)
        theirs[1].write(b"abcdef")
        with pytest.raises(RESET):
            await ours[0].readexactly(4)
        ours, theirs = await line.both_ends()
        theirs[1].write(b"abcdef")
        assert await ours[0].readexactly(6) == b"abcdef"


async def test_a_service_that_nobody_runs_is_a_reset() -> None:
    async with Line().laid() as (line, wire):
        line.wire = await Wire.start("127.0.0.1:9")
        try:
            reader, _ = await line.router_end()
            with pytest.raises(RESET):
                await reader.readexactly(1)
        finally:
            await line.wire.close()
            line.wire = wire


@pytest.mark.parametrize("chunk_bytes", [1, 7, 600, 1 << 20])
async def test_corruption_changes_one_byte_of_every_second_long_data_frame(
    chunk_bytes: int,
) -> None:
    damage = Damage()
    damage.become("corrupt", "2", "1")
    parts = [
        bytes(PREFACE_BYTES),
        frame(bytes(1000)),
        frame(bytes(1000), kind=1),
        frame(bytes(100)),
        frame(bytes(1000)),
        frame(bytes(2000)),
        frame(bytes(3000)),
    ]
    whole = b"".join(parts)
    frames = Frames(damage, PREFACE_BYTES)
    passed = b"".join(
        frames.pass_through(whole[start : start + chunk_bytes])
        for start in range(0, len(whole), chunk_bytes)
    )
    changed = [number for number in range(len(whole)) if passed[number] != whole[number]]
    starts = [sum(map(len, parts[:number])) + HEAD_BYTES for number in (4, 6)]
    assert len(changed) == 2
    assert starts[0] <= changed[0] < starts[0] + 1000
    assert starts[1] <= changed[1] < starts[1] + 3000


async def test_nothing_is_changed_unless_asked_for() -> None:
    whole = bytes(PREFACE_BYTES) + frame(bytes(1000)) * 10
    assert Frames(Damage(), PREFACE_BYTES).pass_through(whole) == whole
