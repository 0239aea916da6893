"""How a command of the command line lives: signals, telemetry and its exit code."""

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Coroutine
from typing import Any

from services.runtime.event_loop import NewLoop, run_in_loop
from services.runtime.failures import leaves
from services.runtime.logs import configure_logging
from services.runtime.otlp.settings import load_telemetry
from services.runtime.process import exit_code_of
from services.runtime.telemetry import configure_telemetry

TERMINATED_EXIT = 128 + signal.SIGTERM
BROKEN_PIPE_EXIT = 128 + signal.SIGPIPE


def run_command(
    life: Coroutine[Any, Any, None],
    *,
    command: str,
    new_loop: NewLoop = asyncio.new_event_loop,
) -> int:
    """Run a command's coroutine in such a loop; its exit code, as `exit_code_of` has it.

    SIGINT and SIGTERM cancel it, so that what it started is stopped before it ends. A reader of stdout that
    left ends it quietly.
    """
    try:
        telemetry = load_telemetry(f"moesaic {command}")
    except SystemExit:
        life.close()  # it will never be awaited
        raise
    configure_logging(command, "warning")

    def run() -> int:
        with configure_telemetry(command, uuid.uuid4().hex, telemetry, metrics_port=None):
            try:
                run_in_loop(_cancelled_by_sigterm(life), new_loop)
            except asyncio.CancelledError:
                return TERMINATED_EXIT
            except (BrokenPipeError, BaseExceptionGroup) as error:
                if not any(isinstance(leaf, BrokenPipeError) for leaf in leaves(error)):
                    raise
                _forget_stdout()
                return BROKEN_PIPE_EXIT
        return 0

    return exit_code_of(run, command=command)


async def _cancelled_by_sigterm(life: Coroutine[Any, Any, None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await life


def _forget_stdout() -> None:
    # Python flushes stdout as it exits, and would complain about the reader a second time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
