"""What Python does of one native stream: its headers, its deadline, and the messages that the
native thread does not answer itself.
"""

import asyncio
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from services.expert import call_headers
from services.expert.admission import Contract, Slots
from services.expert.batcher import Batcher
from services.expert.frame_desk import FrameDesk
from services.runtime.call_headers import RESPONSE_HEADERS, timeout_seconds
from services.runtime.failures import failure_of
from services.wire.errors import DeadlinePassed
from services.wire.tls import Verified

if TYPE_CHECKING:  # it may not have been built
    from services.expert._plane import Plane as NativePlane


class Command(IntEnum):
    """What the native thread can be asked for; the numbers are handover.h's."""

    ADMIT = 0
    REPLY = 1
    DONE = 2
    END = 3
    CUT = 4
    CLOSE = 5
    SETTLE = 6
    DRAIN = 7


class PlaneStream:
    """A stream between its headers and its end. The native thread counts its credit, and what of it
    is not answered.
    """

    def __init__(
        self, native: "NativePlane", number: int, batcher: Batcher, contract: Contract, slots: Slots
    ) -> None:
        self._native = native
        self._number = number
        self._desk = FrameDesk(batcher, contract, slots, self, self._send)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_counted = False  # the pairs of the message in hand

    def open(self, headers: Mapping[str, str], verified: Verified | None) -> None:
        """Serve the call that the headers ask for, or refuse it; over TLS by what it has `verified`
        of the caller.
        """
        if (refusal := call_headers.refusal(headers, verified)) is not None:
            self._native.command(Command.CUT, self._number, refusal)
            return
        if (seconds := timeout_seconds(headers)) is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self._end_late)
        self._native.command(Command.ADMIT, self._number, RESPONSE_HEADERS)

    def receive(self, data: bytes, received: int, *, is_counted: bool = False) -> None:
        """Take in a message that came at this time of the monotonic clock, and whose pairs the
        native thread may have counted as taken. One that is none ends the stream, after the answers
        to those before.
        """
        self._is_counted = is_counted
        try:
            is_answered = self._desk.receive(data, received)
        except Exception as error:  # noqa: BLE001 -- the boundary of a stream: others are served by the same task
            failure = failure_of(error, "reading a message")
            self._native.command(Command.END, self._number, call_headers.trailers(failure))
            return
        if not is_answered:
            self._native.command(Command.DONE, self._number)

    def close(self) -> None:
        """The stream is gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._desk.abandon()

    def take(self, num_pairs: int) -> bool:
        """As Credit says."""
        return self._is_counted or self._native.take(self._number, num_pairs)

    def grant(self, num_pairs: int) -> int:
        """As Credit says."""
        self._native.grant(self._number, num_pairs)
        return 0

    def _send(self, message: bytes) -> None:
        self._native.command(Command.REPLY, self._number, message)

    def _end_late(self) -> None:
        error = DeadlinePassed("the call's time is up")
        self._native.command(Command.CUT, self._number, call_headers.trailers(error))
