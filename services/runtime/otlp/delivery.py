"""Gets messages to a collector: tried again while that may help, and a problem is said once."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from services.runtime.otlp.destination import HTTP, ExportTarget, Signal
from services.runtime.otlp.grpc_sender import GrpcSender
from services.runtime.otlp.http_sender import HttpSender
from services.runtime.otlp.not_taken import NotTaken

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 5.0


class Sender(Protocol):
    """One try to send a message, by whatever protocol."""

    def send(self, message: bytes, timeout_seconds: float | None) -> bytes:
        """The collector's answer. Raises NotTaken."""

    def close(self) -> None:
        """Let go of the connection."""


class Delivery:
    """The way of one signal's messages to the collector, for one thread at a time.

    A message that is not taken within the destination's timeout, or would never be, is lost; that
    is logged when it begins to happen, and not again until it has ended. Once `hurry` was called a
    second try follows the first at once, and is the last: a process that ends does not wait for a
    collector that is gone.
    """

    def __init__(self, destination: ExportTarget) -> None:
        self._destination = destination
        self._sender: Sender = (
            HttpSender(destination) if destination.protocol == HTTP else GrpcSender(destination)
        )
        self._is_last = threading.Event()
        self._has_problem = False

    def deliver(self, encode: Callable[[], bytes]) -> bool:
        """Whether the collector took the whole of the message that is encoded here."""
        try:
            problem = _rejected(self._destination.signal, self._send(encode()))
        except NotTaken as failure:
            problem = str(failure)
        except Exception as error:  # noqa: BLE001 -- the boundary: whatever fails here, the process goes on
            problem = f"{type(error).__name__}: {error}"
        self._note(problem)
        return not problem

    def hurry(self) -> None:
        """The process ends: do not wait any longer before trying again."""
        self._is_last.set()

    def close(self) -> None:
        """Let go of the connection."""
        self._sender.close()

    def _send(self, message: bytes) -> bytes:
        timeout = self._destination.timeout_seconds
        until = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_PAUSE_SECONDS
        while True:
            is_last = self._is_last.is_set() and pause > FIRST_PAUSE_SECONDS
            try:
                return self._sender.send(
                    message, None if until is None else max(0.01, until - time.monotonic())
                )
            except NotTaken as failure:
                wait = random.uniform(0.5, 1.0) * pause
                if (
                    is_last
                    or not failure.may_pass
                    or (until is not None and time.monotonic() + wait >= until)
                ):
                    raise
            self._is_last.wait(wait)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _note(self, problem: str) -> None:
        destination = self._destination
        signal, target = destination.signal.value, destination.endpoint.target.partition("?")[0]
        if problem and not self._has_problem:
            logger.warning(
                "%s are lost: %s does not take them by %s: %s",
                signal,
                target,
                destination.protocol,
                problem,
            )
        elif self._has_problem and not problem:
            logger.warning("%s are taken again by %s", signal, target)
        self._has_problem = bool(problem)


def _rejected(signal: Signal, answer: bytes) -> str:
    """What a collector that took a message says that it did not take of it; empty for nothing."""
    try:
        if signal is Signal.TRACES:
            spans = ExportTraceServiceResponse.FromString(answer).partial_success
            return (
                f"{spans.rejected_spans} refused: {spans.error_message}"
                if spans.rejected_spans
                else ""
            )
        points = ExportMetricsServiceResponse.FromString(answer).partial_success
        return (
            f"{points.rejected_data_points} refused: {points.error_message}"
            if points.rejected_data_points
            else ""
        )
    except DecodeError:  # some answer in words
        return ""
