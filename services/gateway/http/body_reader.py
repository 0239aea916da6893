"""Reads bodies without holding others up: large ones in a process apart, since whoever parses JSON
keeps the interpreter's lock until all of it is read.
"""

import logging
import pickle
from collections.abc import Callable, Sequence
from typing import IO, TypeVar

from services.gateway.http.asked import Asked
from services.gateway.http.bodies import Bytes
from services.gateway.http.errors import BadField
from services.gateway.turns import FairThreads
from services.gateway.workers_apart import WorkersApart, command_of

logger = logging.getLogger(__name__)

# The largest that the event loop reads itself. The worst of that size takes it some milliseconds,
# and the way to another process and back about one.
MAX_BYTES_HERE = 64 << 10
# The worst takes a second for four megabytes, of a core that is its own.
MAX_SECONDS = 30.0
COMMAND = command_of("services.gateway.http.body_worker")

Read = TypeVar("Read", bound=Asked)
Reading = Callable[[Bytes], Read]


class BodyReader:
    """Of one HTTP port. One large body is read at a time, and clients take turns. A process that
    takes more than `max_seconds`, or more memory than it may have, is ended.
    """

    def __init__(
        self, *, max_seconds: float = MAX_SECONDS, command: Sequence[str] = COMMAND
    ) -> None:
        self._threads = FairThreads(1, name="bodies")
        self._workers = WorkersApart(command, max_seconds=max_seconds)

    async def read(self, reading: Reading[Read], body: Bytes, client: str) -> Read:
        """What the body asks for, by one of the functions of asked.py. Raises BadField as that
        does, and where it was not read.
        """
        if len(body) <= MAX_BYTES_HERE:
            return reading(body)
        return await self._threads.do(client, lambda: self._read_apart(reading, body))

    def close(self) -> None:
        """End the process."""
        self._threads.close()
        self._workers.close()

    def _read_apart(self, reading: Reading[Read], body: Bytes) -> Read:
        said = f"{reading.__name__} {len(body)}\n".encode() + body
        answer = self._workers.ask(said, _whole)
        if not answer:
            logger.error("the process that reads large bodies was ended")
            raise BadField(
                f"the body was not read: it took more than {self._workers.max_seconds:g} s, or too "
                "much memory"
            )
        # Of our own process, which tells no more than what it read.
        asked: Read | tuple[str, str | None] = pickle.loads(answer)
        if isinstance(asked, tuple):
            raise BadField(*asked)
        return asked


def _whole(answer: IO[bytes]) -> bytes:
    """As many bytes as the first line says; none where there are fewer."""
    length = int(answer.readline() or 0)
    read = answer.read(length)
    return read if len(read) == length else b""
