"""Where members of a local cluster are born: in a process that has imported what they need, and
forks for each of them. Linux only.
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from services.cli.adopted import Adopted, adopting
from services.cli.birth import MAX_MESSAGE_BYTES, Birth
from services.cli.log_file import output_to

# The services that have torch to import, which takes longer than all else of their start.
BORN = frozenset({"expert", "router"})
# What is left for the titles of those that are born: they are written over a nursery's arguments.
ROOM_FOR_TITLES = " " * 1024
# The first of them comes when everything is imported, from a disk that may be slow and busy.
BIRTH_SECONDS = 120.0


class NotBorn(Exception):
    """The nursery did not have the process; it may be started as a program of its own."""


class Nursery:
    """The handle of a nursery's process. What was born there goes on when that ends: it is the
    child of this process.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    async def bear(self, birth: Birth, *, output: int, announcing: int) -> Adopted:
        """A new process that runs the service, once everything is imported.

        Its stdout and stderr are `output`; it has a copy of `announcing` too. Raises NotBorn where
        that cannot be done.
        """
        # It waits until it is let go, so that none is left that nobody knows of.
        waiting, letting_go = os.pipe()
        try:
            async with self._turn:
                with adopting():
                    message, descriptors = birth.message(), (waiting, announcing, output)
                    adopted = Adopted(await self._ask(message, descriptors))
            os.write(letting_go, b"\n")
            return adopted
        except (OSError, ValueError) as error:
            raise NotBorn(str(error)) from error
        finally:
            os.close(waiting)
            os.close(letting_go)

    async def _ask(self, message: bytes, descriptors: Sequence[int]) -> int:
        socket.send_fds(self._connection, [message], list(descriptors))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(BIRTH_SECONDS):
                return int(await loop.sock_recv(self._connection, MAX_MESSAGE_BYTES))
        except BaseException:
            # The answer would be taken for the next one's.
            self._connection.shutdown(socket.SHUT_RDWR)
            raise


@asynccontextmanager
async def nursery_for(
    model: Path | None, variables: Mapping[str, str], log: Path | None
) -> AsyncIterator[Nursery | None]:
    """A nursery until the block ends, for members that serve the model with these variables besides
    this process's own; None where the system has no such thing.
    """
    if not _is_possible():
        yield None
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.setblocking(False)
        with theirs, output_to(log) as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "services.cli.birthplace", str(theirs.fileno())),
                *("" if model is None else str(model), ROOM_FOR_TITLES),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**os.environ, **variables},
            )
        try:
            yield Nursery(ours)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _is_possible() -> bool:
    """Whether processes can be forked elsewhere and watched from here."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
        with adopting():
            return True
    except OSError:  # an older kernel, or a sandbox that forbids it
        return False
