"""Where questions come from: a prompt with history on a terminal, else the lines of stdin."""

import asyncio
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from services.cli.running import cache_folder
from services.wire.errors import InvalidRequest

# No context takes as much.
MAX_LINE_BYTES = 16 << 20
CHUNK_BYTES = 1 << 16


class Reader(Protocol):
    """Gives what was typed, one question after the other."""

    async def read(self) -> str | None:
        """The next one; None at the end. Raises KeyboardInterrupt where Ctrl-C gave it up."""
        ...


class LineReader:
    """The lines of a file or a pipe; stdin unless said otherwise."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self._read = bytearray()
        self._is_over = False

    async def read(self) -> str | None:
        """The next line without its end; None after the last. Raises InvalidRequest for one that is
        no UTF-8 or longer than any context.
        """
        while b"\n" not in self._read and not self._is_over:
            chunk = await _in_thread_of_its_own(self._descriptor)
            self._is_over = not chunk
            self._read += chunk
            if len(self._read) > MAX_LINE_BYTES:
                raise InvalidRequest(f"a line has more than {MAX_LINE_BYTES >> 20} MiB")
        if not self._read:
            return None
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read = bytearray(rest)
        try:
            return line.decode().removesuffix("\r")
        except UnicodeDecodeError as error:
            raise InvalidRequest("what is asked must be UTF-8") from error


async def _in_thread_of_its_own(descriptor: int) -> bytes:
    """Some bytes, none at the end. Whoever stops waiting leaves a thread behind that the process
    does not wait for: reading cannot be broken off.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Future[bytes] = loop.create_future()

    def deliver(chunk: bytes) -> None:
        if not came.done():
            came.set_result(chunk)

    def work() -> None:
        try:
            chunk = os.read(descriptor, CHUNK_BYTES)
        except OSError:
            chunk = b""
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(deliver, chunk)

    threading.Thread(target=work, daemon=True).start()
    return await came


def history_file() -> Path:
    """Where questions are remembered, by user."""
    return cache_folder() / "chat_history"
