"""How a command of the command line lives: signals, telemetry and its exit code."""

import asyncio
import signal
import uuid
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

from services.runtime.event_loop import NewLoop, run_in_loop
from services.runtime.failures import flatten_group
from services.runtime.logs import configure_logging
from services.runtime.otlp.settings import load_telemetry
from services.runtime.process import ProcessSettings, exit_code_of
from services.runtime.settings import load
from services.runtime.signals import ending_signals, may_repeat
from services.runtime.streams import give_up_output, is_lost_output
from services.runtime.telemetry import configure_telemetry

# To which a shell adds the number of the signal that ended a process.
SIGNAL_EXIT = 128


def run_command(
    life: Coroutine[Any, Any, None],
    *,
    command: str,
    new_loop: NewLoop = asyncio.new_event_loop,
) -> int:
    """Run a command's coroutine in such a loop; its exit code, as `exit_code_of` has it.

    SIGINT, SIGTERM and SIGHUP cancel it, so that what it started is stopped before it ends; a
    second one hastens that. A reader of stdout that left ends it quietly. Exits with 2 where a
    variable of every process has a bad value.
    """
    with closing(life):  # it is never awaited where the process cannot begin
        load(ProcessSettings, (), f"moesaic {command}")
        telemetry = load_telemetry(f"moesaic {command}")
        configure_logging(command, "warning")

        def run() -> int:
            with configure_telemetry(command, uuid.uuid4().hex, telemetry, metrics_at=None):
                return _run(life, command, new_loop)

        return exit_code_of(run, command=command)


def _run(life: Coroutine[Any, Any, None], command: str, new_loop: NewLoop) -> int:
    came: list[signal.Signals] = []
    try:
        run_in_loop(_cancelled_by_signals(life, came), new_loop)
    except asyncio.CancelledError:
        return SIGNAL_EXIT + (came or [signal.SIGTERM])[0]
    except (OSError, BaseExceptionGroup) as error:
        lost = [leaf for leaf in flatten_group(error) if is_lost_output(leaf)]
        if not lost:
            raise
        return give_up_output(f"moesaic {command}", lost[0])
    return 0


async def _cancelled_by_signals(
    life: Coroutine[Any, Any, None], came: list[signal.Signals]
) -> None:
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"

    def cancel(number: signal.Signals) -> None:
        if number not in came or not may_repeat(number):
            came.append(number)
            task.cancel()

    for number in ending_signals():
        if number != signal.SIGINT:  # that one is the runner's
            asyncio.get_running_loop().add_signal_handler(number, cancel, number)
    await life
