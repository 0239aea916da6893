"""The handle of a TCP relay between a router and one expert service, which does damage when told
to.
"""

import asyncio
import sys
from pathlib import Path

from bench.hosting.relay import LOOPBACK

RELAY = Path(__file__).with_name("relay.py")
ORDER_SECONDS = 10.0


class Wire:
    """A running relay, a process of its own. What it was told last holds until it is told
    otherwise.
    """

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.address = address
        self._process = process

    @classmethod
    async def start(cls, address: str, dispatch_port: int | None = None) -> "Wire":
        """Relay to `address`; where the relay itself listens is in the handle's `address`. What the
        service there calls its port for streams is relayed, too, under the same number.
        """
        ports = () if dispatch_port is None else (str(dispatch_port),)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(RELAY),
            address,
            *ports,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None, "it is piped"
        return cls(process, f"{LOOPBACK}:{int(await process.stdout.readline())}")

    async def close(self) -> None:
        """End the relay and its connections."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def restore(self) -> None:
        """Hand everything on as it is from now on, and what was kept back at once."""
        await self._order("restore")

    async def cut(self) -> None:
        """Reset all connections, and new ones as they come."""
        await self._order("cut")

    async def hold(self) -> None:
        """Keep everything back, as a partitioned network does."""
        await self._order("hold")

    async def delay(self, seconds: float) -> None:
        """Hand everything on so much later, each way."""
        await self._order(f"delay {seconds}")

    async def truncate(self, num_bytes: int) -> None:
        """Reset each connection of now once the service has said so many bytes more on it; new ones
        are whole.
        """
        await self._order(f"truncate {num_bytes}")

    async def corrupt(self, every: int, seed: int) -> None:
        """Change one byte, at random, in every so many'th long HTTP/2 data frame, both ways counted
        together.
        """
        await self._order(f"corrupt {every} {seed}")

    async def _order(self, order: str) -> None:
        assert self._process.stdin is not None, "it is piped"
        assert self._process.stdout is not None, "it is piped"
        self._process.stdin.write(f"{order}\n".encode())
        async with asyncio.timeout(ORDER_SECONDS):
            answer = await self._process.stdout.readline()
        if answer != b"done\n":
            raise RuntimeError(f"the relay answered {answer!r} to {order!r}")
