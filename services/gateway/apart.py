"""Runs what a checkpoint says in processes of their own: a program is surely ended with its process
alone.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from threading import Lock, Timer
from typing import Any

from services.gateway.answering import MAX_MEMORY_BYTES
from services.wire.errors import BadState, InvalidRequest

# For each answer.
MAX_SECONDS = 10.0
# So many times as long for the beginning, whose time is the processor's: a busy machine is no fault
# of a checkpoint's.
BEGINNING_PATIENCE = 3


class Ended(Exception):
    """The process was ended: it took more time, or more memory, than it may."""


def command_of(module: str) -> Sequence[str]:
    """Runs a module of ours that answers by `answering.answer_lines`."""
    return (sys.executable, "-P", "-m", module)


class Apart:
    """Asks processes; several threads may ask at once, with a process each.

    A process is started by `command` when it is needed, told `beginning`, and kept. One that takes
    more than `max_seconds` for an answer, or more memory than it may have, is ended, and another
    takes its place.
    """

    def __init__(
        self, command: Sequence[str], beginning: object, *, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._command = command
        self._beginning = _line(beginning)
        self._max_seconds = max_seconds
        self._idle: list[subprocess.Popen[bytes]] = []
        self._lock = Lock()
        self._is_closed = False

    def ask(self, question: object) -> Any:
        """The answer. Raises InvalidRequest, in its words, where a process refuses the question,
        BadState where it refuses the beginning, and Ended.
        """
        worker = self._idle_one() or self._started()
        answer = self._answer(worker, _line(question), self._max_seconds)
        self._keep(worker)
        if "refusal" in answer:
            raise InvalidRequest(answer["refusal"])
        return answer["answer"]

    def close(self) -> None:
        """End the processes; one that is asked is ended when it has answered."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            _end(worker)

    def _started(self) -> "subprocess.Popen[bytes]":
        worker = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        answer = self._answer(worker, self._beginning, BEGINNING_PATIENCE * self._max_seconds)
        if "refusal" in answer:
            _end(worker)
            raise BadState(answer["refusal"])
        return worker

    def _answer(
        self, worker: "subprocess.Popen[bytes]", said: bytes, max_seconds: float
    ) -> dict[str, Any]:
        read = _read(worker, said, max_seconds)
        if not read:
            _end(worker)
            raise Ended(
                f"it took more than {self._max_seconds:g} s, or more than "
                f"{MAX_MEMORY_BYTES >> 20} MiB of memory"
            )
        answer: dict[str, Any] = json.loads(read)
        return answer

    def _idle_one(self) -> "subprocess.Popen[bytes] | None":
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None or worker.poll() is None:
            return worker
        _end(worker)  # it died meanwhile
        return None

    def _keep(self, worker: "subprocess.Popen[bytes]") -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(worker)
                return
        _end(worker)


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.communicate()


def _read(worker: "subprocess.Popen[bytes]", said: bytes, max_seconds: float) -> bytes:
    """The answer; nothing where the process has ended, be it while it answered."""
    assert worker.stdin is not None, "it was started with a pipe"
    assert worker.stdout is not None, "it was started with a pipe"
    timer = Timer(max_seconds, worker.kill)
    timer.start()
    try:
        worker.stdin.write(said)
        worker.stdin.flush()
        answer = worker.stdout.readline()
        return answer if answer.endswith(b"\n") else b""
    except OSError:
        return b""
    finally:
        timer.cancel()


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
