"""A TCP relay that hands everything on some time later: a service that is far away."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def slow_wire(address: str, delay_seconds: float) -> AsyncIterator[str]:
    """Relay to `address`, each way `delay_seconds` late and any amount under way; yields the relay's own address.

    It is a process of its own: beside what it connects it would get its turn too late, and hand on together what was
    sent one after the other.
    """
    relay = await asyncio.create_subprocess_exec(
        sys.executable, __file__, address, str(delay_seconds), stdout=asyncio.subprocess.PIPE
    )
    assert relay.stdout is not None, "it is piped"
    try:
        yield f"127.0.0.1:{int(await relay.stdout.readline())}"
    finally:
        relay.kill()
        await relay.wait()


async def _serve(address: str, delay_seconds: float) -> None:
    async with asyncio.TaskGroup() as wires:

        def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            wires.create_task(_relay(reader, writer, address, delay_seconds))

        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, delay_seconds: float
) -> None:
    host, _, port = address.rpartition(":")
    try:
        from_service, to_service = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(_carry(reader, to_service, delay_seconds))
                directions.create_task(_carry(from_service, writer, delay_seconds))
        finally:
            to_service.close()
    except* OSError:
        pass  # an end is gone, and with it the connection
    finally:
        writer.close()


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def hand_on() -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            sink.write(data)
            await sink.drain()
        sink.close()

    async with asyncio.TaskGroup() as parts:
        parts.create_task(hand_on())
        while data := await source.read(1 << 16):
            under_way.put_nowait((loop.time() + delay_seconds, data))
        under_way.put_nowait((loop.time() + delay_seconds, b""))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], float(sys.argv[2])))
