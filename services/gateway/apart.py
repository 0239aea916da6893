"""Runs what a checkpoint says in processes of their own: a program is surely ended with its process
alone.
"""

import json
from collections.abc import Sequence
from typing import IO, Any

from services.gateway.workers_apart import (
    MAX_MEMORY_BYTES,
    MAX_SECONDS,
    Exchange,
    WorkersApart,
)
from services.wire.errors import BadState, InvalidRequest

# So many times as long for the beginning, whose time is the processor's: a busy machine is no fault
# of a checkpoint's.
BEGINNING_PATIENCE = 3


class Ended(Exception):
    """The process was ended: it took more time, or more memory, than it may."""


class Apart:
    """Asks processes that answer by `answering.answer_lines`; several threads may ask at once, with
    a process each.

    A process is started by `command` when it is needed, told `beginning`, and kept. One that takes
    more than `max_seconds` for an answer, or more memory than it may have, is ended, and another
    takes its place.
    """

    def __init__(
        self, command: Sequence[str], beginning: object, *, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._beginning = _line(beginning)
        self._max_seconds = max_seconds
        self._workers = WorkersApart(command, begin=self._begin, max_seconds=max_seconds)

    def ask(self, question: object) -> Any:
        """The answer. Raises InvalidRequest, in its words, where a process refuses the question,
        BadState where it refuses the beginning, and Ended.
        """
        answer = self._told(self._workers.ask(_line(question), _read_line))
        if "refusal" in answer:
            raise InvalidRequest(answer["refusal"])
        return answer["answer"]

    def close(self) -> None:
        """End the processes, those that are asked too."""
        self._workers.close()

    def _begin(self, exchange: Exchange) -> None:
        seconds = BEGINNING_PATIENCE * self._max_seconds
        answer = self._told(exchange(self._beginning, _read_line, seconds))
        if "refusal" in answer:
            raise BadState(answer["refusal"])

    def _told(self, read: bytes) -> dict[str, Any]:
        if not read:
            raise Ended(
                f"it took more than {self._max_seconds:g} s, or more than "
                f"{MAX_MEMORY_BYTES >> 20} MiB of memory"
            )
        answer: dict[str, Any] = json.loads(read)
        return answer


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _read_line(answer: IO[bytes]) -> bytes:
    line = answer.readline()
    return line if line.endswith(b"\n") else b""
