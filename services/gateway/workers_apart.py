"""Processes that do what nobody can say the cost of: the one sure way to end such work, or to keep
it from the interpreter's lock, is a process of its own.
"""

import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock, Timer
from typing import IO

MAX_SECONDS = 10.0
MAX_MEMORY_BYTES = 1 << 30

# What is read of an answer; nothing where it is none.
Read = Callable[[IO[bytes]], bytes]
# Says something to one process and reads the answer, within so many seconds.
Exchange = Callable[[bytes, Read, float], bytes]


class WorkersApart:
    """Of one command; several threads may ask at once, with a process each.

    A process is started when it is needed, and kept once `begin` has said what it is to know before
    all else. One that takes more than `max_seconds` is ended, and another takes its place.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        begin: Callable[[Exchange], None] = lambda exchange: None,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self.max_seconds = max_seconds
        self._command = command
        self._begin = begin
        self._idle: list[subprocess.Popen[bytes]] = []
        self._working: set[subprocess.Popen[bytes]] = set()
        self._lock = Lock()
        self._is_closed = False

    def ask(self, said: bytes, read: Read) -> bytes:
        """What is read of the answer; nothing where the process has ended, be it while it
        answered, for which `read` says nothing too. Raises what `begin` raises.
        """
        worker = self._idle_one()
        is_new = worker is None
        if worker is None:
            worker = self._started()
        answer = b""
        try:
            if is_new:
                self._begin(partial(_exchange, worker))
            answer = _exchange(worker, said, read, self.max_seconds)
            return answer
        finally:
            self._put_away(worker, is_usable=bool(answer))

    def close(self) -> None:
        """End the processes, those that work too: who waits for them is told nothing."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for worker in self._working:
                worker.kill()
        for worker in idle:
            _end(worker)

    def _put_away(self, worker: "subprocess.Popen[bytes]", *, is_usable: bool) -> None:
        with self._lock:
            self._working.discard(worker)
            if is_usable and not self._is_closed:
                self._idle.append(worker)
                return
        _end(worker)

    def _idle_one(self) -> "subprocess.Popen[bytes] | None":
        with self._lock:
            worker = self._idle.pop() if self._idle else None
            if worker is not None and worker.poll() is None:
                self._working.add(worker)
                return worker
        if worker is not None:
            _end(worker)  # it died meanwhile
        return None

    def _started(self) -> "subprocess.Popen[bytes]":
        worker = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is the gateway's, which answers what it has before it ends
        )
        with self._lock:
            self._working.add(worker)
            if self._is_closed:
                worker.kill()
        return worker


def command_of(module: str) -> tuple[str, ...]:
    """What runs a module as such a process."""
    return (sys.executable, "-P", "-m", module)


def bound_memory() -> None:
    """Have this process fail for want of memory before others do."""
    limit(resource.RLIMIT_AS, MAX_MEMORY_BYTES)


def limit(what: int, most: int) -> None:
    """Let this process have at most so much of a resource, which may be less already."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(hard, most), hard))


def _exchange(
    worker: "subprocess.Popen[bytes]", said: bytes, read: Read, max_seconds: float
) -> bytes:
    assert worker.stdin is not None, "it was started with a pipe"
    assert worker.stdout is not None, "it was started with a pipe"
    timer = Timer(max_seconds, worker.kill)
    timer.start()
    try:
        worker.stdin.write(said)
        worker.stdin.flush()
        return read(worker.stdout)
    except (OSError, ValueError):  # it is gone, or says what is no answer
        return b""
    finally:
        timer.cancel()


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.communicate()
