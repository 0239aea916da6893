"""A service's process: from its settings to its exit code."""

import asyncio
import ctypes
import importlib
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal, NoReturn

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.runtime.allocator import keep_freed_memory
from services.runtime.announcement import Announcement
from services.runtime.event_loop import run_in_loop
from services.runtime.failures import leaves
from services.runtime.garbage import set_aside_what_stays
from services.runtime.lag import measure_loop_lag
from services.runtime.logs import configure_logging
from services.runtime.otlp.settings import load_telemetry
from services.runtime.settings import Variables, load
from services.runtime.telemetry import configure_telemetry
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

OnReady = Callable[[int], Awaitable[None]]

FAILED_EXIT = 1
INTERRUPTED_EXIT = 128 + signal.SIGINT
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# From <linux/prctl.h>: the signal this process gets when its parent dies.
PR_SET_PDEATHSIG = 1
# Longer than any service drains by default.
ORPHAN_SECONDS = 40.0


class ProcessSettings(BaseSettings):
    """What every process has, whichever service it is."""

    model_config = SettingsConfigDict(env_prefix="MOESAIC_", frozen=True)

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level logged")
    metrics_port: int | None = Field(None, ge=1, le=65_535, description="port for Prometheus; unset for none")
    announce_fd: int | None = Field(None, ge=0, description="descriptor that gets `ready PORT` once serving")
    parent_pid: int | None = Field(None, ge=1, description="process to die with")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read variables as `load` does, wherever these are made."""
        return init_settings, Variables(settings_cls)


def run_service(
    service: str,
    settings_class: type[BaseSettings],
    arguments: Sequence[str],
    *,
    prog: str | None = None,
    examples: Sequence[str] = (),
) -> NoReturn:
    """Run one service until it is told to stop, then end the process with the exit code of `run_process`.

    Reads the settings, pins the threads that `settings.threads` names, and only then imports
    `services.<service>.app`, whose `run(settings, on_ready=...)` is the service.
    """
    settings = load(settings_class, arguments, prog or f"moesaic {service}", examples=examples)
    _pin_threads(getattr(settings, "threads", None))

    async def life(on_ready: OnReady) -> None:
        app = importlib.import_module(f"services.{service}.app")
        await app.run(settings, on_ready=on_ready)

    _leave(run_process(life, service=service))


def run_process(life: Callable[[OnReady], Coroutine[Any, Any, None]], *, service: str) -> int:
    """Run `life` in an event loop with logging and telemetry; the exit code, as `exit_code_of` has it."""
    process = load(ProcessSettings, (), f"moesaic {service}")
    telemetry = load_telemetry(f"moesaic {service}")
    keep_freed_memory()
    configure_logging(service, process.log_level)
    announcement = Announcement(process.announce_fd) if process.announce_fd is not None else None
    _die_with(process.parent_pid)
    measured = telemetry.metrics is not None or process.metrics_port is not None

    def run() -> None:
        with configure_telemetry(service, uuid.uuid4().hex, telemetry, metrics_port=process.metrics_port):
            run_in_loop(_live(life(_announcer(announcement)), measured))

    return exit_code_of(run, command=service)


def exit_code_of(run: Callable[[], int | None], *, command: str) -> int:
    """Call `run` and tell how it ended: what it returned, 130 when interrupted, 1 when it failed.

    A ServingError is one line on stderr, anything else a traceback in the log.
    """
    try:
        return run() or 0
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    except ServingError as error:
        return _failed(command, [error])
    except BaseExceptionGroup as group:
        return _failed(command, leaves(group))


async def _live(life: Coroutine[Any, Any, None], measured: bool) -> None:
    async with asyncio.TaskGroup() as loops:
        lag = loops.create_task(measure_loop_lag()) if measured else None
        await life
        if lag is not None:
            lag.cancel()


def _announcer(announcement: Announcement | None) -> OnReady:
    async def announce(port: int) -> None:
        set_aside_what_stays()
        logger.info("ready on port %d", port)
        if announcement is not None:
            announcement.send(port)

    return announce


def _failed(command: str, errors: Sequence[BaseException]) -> int:
    for error in errors:
        if isinstance(error, ServingError):
            print(f"moesaic {command}: {error}", file=sys.stderr, flush=True)
        else:
            logger.critical("the process failed", exc_info=error)
    return FAILED_EXIT


def _leave(code: int) -> NoReturn:
    # The interpreter would take the modules of torch apart one by one for seconds; the kernel frees them at once.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _pin_threads(threads: int | None) -> None:
    if threads is None:
        return
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before its number of threads was set")
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def _die_with(parent_pid: int | None) -> None:
    """Be told to stop when the parent dies, however it dies; Linux only."""
    if parent_pid is None or not sys.platform.startswith("linux"):
        return
    threading.Thread(target=_end_as_orphan, args=(parent_pid,), name="orphan", daemon=True).start()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGTERM)


def _end_as_orphan(parent_pid: int) -> None:
    """End the process for good when it still drains long after its parent died: nobody is there to do so."""
    while os.getppid() == parent_pid:
        time.sleep(1.0)
    time.sleep(ORPHAN_SECONDS)
    os._exit(FAILED_EXIT)
