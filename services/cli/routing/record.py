"""A recording of live routing as it comes from a router, shown while it comes and kept however it
ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from moesaic.v1 import router_pb2
from services.cli.hosting.router import RouterFailed, router_at
from services.cli.output_files import written_whole
from services.cli.report import Report
from services.cli.routing.settings import RecordSettings
from services.router.load.recording import Recording, joined
from services.wire.errors import InvalidRequest


async def recording(settings: RecordSettings, report: Report) -> None:
    """Record as the settings say and write the file; what has come is written when it is broken off
    too.

    Raises RouterFailed where the router refuses, fails, or sends too few steps, and InvalidRequest
    where the file cannot be written.
    """
    received = Received(settings.topic if settings.topic is not None else settings.file.stem)
    try:
        async with router_at(settings) as stub:
            request = router_pb2.RecordRoutingRequest(num_steps=settings.steps)
            call = stub.RecordRouting(request, timeout=settings.timeout)
            try:
                await _receive(call, received, settings.steps, report)
            finally:
                call.cancel()
    finally:
        received.write(settings, report)
    if received.num_steps < settings.steps:
        raise RouterFailed(
            f"the router ended the stream after {received.num_steps} of {settings.steps} steps"
        )


class Received:
    """What has come so far."""

    def __init__(self, topic: str) -> None:
        self.num_steps = 0
        self._topic = topic
        self._parts: list[Recording] = []
        self._num_missed = 0

    def take(self, response: router_pb2.RecordRoutingResponse) -> None:
        """Take in a response. Raises RouterFailed for one that contradicts itself."""
        try:
            part = _part(response, self._topic)
        except ValueError as error:
            raise RouterFailed(f"the router sent what is no recording: {error}") from error
        self._parts.append(part)
        self.num_steps += part.num_steps
        self._num_missed = response.num_missed

    def write(self, settings: RecordSettings, report: Report) -> None:
        """Write the file, whole or not at all, and say what it has; nothing is written where no
        step has come.
        """
        if not self.num_steps:
            report.line(f"no step was recorded; {settings.file} is not written")
            return
        recording = joined(self._parts)
        try:
            with written_whole(settings.file) as unfinished:
                recording.write(unfinished)
        except OSError as error:
            raise InvalidRequest(f"{settings.file} cannot be written: {error.strerror}") from error
        steps = f"{self.num_steps:,}" + (
            f" of {settings.steps:,}" if self.num_steps < settings.steps else ""
        )
        report.line(f"wrote {settings.file}: {steps} steps, {int(recording.rows.sum()):,} tokens")
        if self._num_missed:
            report.line(
                f"! {self._num_missed:,} steps between them were missed: they came faster than "
                "they were read"
            )


def _part(response: router_pb2.RecordRoutingResponse, topic: str) -> Recording:
    """What a response has. Raises ValueError where it contradicts itself."""
    shape = (response.num_layers, sum(response.rows), response.num_experts_per_token)
    return Recording(
        topic,
        response.num_experts,
        np.frombuffer(response.experts, dtype="<u2").astype(np.uint16).reshape(shape),
        np.array(response.rows, dtype=np.int64),
        np.array(response.is_decode, dtype=bool),
    )


async def _receive(
    call: grpc.aio.UnaryStreamCall, received: Received, num_steps: int, report: Report
) -> None:
    with _shown(num_steps, report) as bar:
        async for response in call:
            received.take(response)
            if bar is not None:
                bar.update(bar.task_ids[0], completed=received.num_steps)


@contextmanager
def _shown(num_steps: int, report: Report) -> Iterator[Progress | None]:
    """A bar where stderr is a terminal, a line elsewhere."""
    if not report.console.is_terminal:
        report.line(f"recording {num_steps:,} steps")
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=report.console, transient=True) as bar:
        bar.add_task("recording steps", total=num_steps)
        yield bar
