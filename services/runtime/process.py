"""A service's process: from its settings to its exit code."""

import asyncio
import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import ModuleType
from typing import Any, Literal, NoReturn, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.allocator import keep_freed_memory
from services.runtime.announcement import Announcement
from services.runtime.event_loop import run_in_loop
from services.runtime.failures import flatten_group
from services.runtime.garbage import set_aside_what_stays
from services.runtime.host_port import is_loopback
from services.runtime.lag import measure_loop_lag
from services.runtime.logs import configure_logging
from services.runtime.otlp.settings import load_telemetry
from services.runtime.parent_death import signal_at_death_of
from services.runtime.settings import load
from services.runtime.streams import prepare_streams
from services.runtime.surroundings import refuse_surroundings
from services.runtime.telemetry import configure_telemetry
from services.wire.errors import BadState, ServingError

logger = logging.getLogger(__name__)

OnReady = Callable[[int], Awaitable[None]]

FAILED_EXIT = 1
INTERRUPTED_EXIT = 128 + signal.SIGINT
KERNELS_VARIABLE, STREAMS_VARIABLE = "MOESAIC_KERNELS", "MOESAIC_NATIVE_STREAMS"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Torch's idle threads sleep: by default they spin for milliseconds, on cores that others want.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
# What a system says when it has no more of something, or may not be written to: no fault of the
# program's.
SHORTAGES = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EFBIG,
    }
)
# Longer than any service drains by default.
ORPHAN_SECONDS = 40.0


class ProcessSettings(BaseSettings):
    """What every process has, whichever service it is."""

    model_config = SettingsConfigDict(env_prefix="MOESAIC_", frozen=True)

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level logged"
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="port for Prometheus; unset for none"
    )
    metrics_listen: str = Field(
        "127.0.0.1", description="address of this machine's to serve Prometheus on"
    )
    metrics_insecure: bool = Field(
        False,
        description="serve metrics to whoever reaches an address that is not the loopback one",
    )
    announce_fd: int | None = Field(
        None, ge=0, description="descriptor that gets `ready PORT` once serving"
    )
    kernels: Literal["off", "portable", "avx2", "avx512", "avx512_bf16", "amx_bf16"] | None = Field(
        None,
        description="best level of the compiled kernels that may be used, or off; unset for the "
        "processor's",
    )
    native_streams: Literal["on", "off"] | None = Field(
        None,
        description="whether compiled modules may carry streams of frames and tokens; unset for on",
    )
    parent_pid: int | None = Field(None, ge=1, description="process to die with")

    @model_validator(mode="after")
    def _metrics_are_kept_from_strangers(self) -> Self:
        host = self.metrics_listen
        if not self.metrics_insecure and not is_loopback(host):
            raise ValueError(
                f"MOESAIC_METRICS_LISTEN: {host!r}: it is reached from elsewhere, by whoever it "
                "may be: MOESAIC_METRICS_INSECURE=true allows that"
            )
        return self

    @property
    def metrics_at(self) -> tuple[str, int] | None:
        """Host and port for Prometheus, if there is to be one."""
        return None if self.metrics_port is None else (self.metrics_listen, self.metrics_port)

    @field_validator("announce_fd")
    @classmethod
    def _is_open(cls, announce_fd: int | None) -> int | None:
        if announce_fd is not None:
            try:
                os.fstat(announce_fd)
            except (OSError, OverflowError):
                raise ValueError("it should be an open descriptor") from None
        return announce_fd


def run_service(
    service: str,
    settings_class: type[BaseSettings],
    arguments: Sequence[str],
    *,
    prog: str | None = None,
    examples: Sequence[str] = (),
    is_prepared: bool = False,
) -> NoReturn:
    """Run one service until it is told to stop, then end the process with the exit code of
    `run_process`.

    Reads the settings, pins the threads that `settings.threads` names, and only then imports
    `services.<service>.app`, whose `run(settings, on_ready=...)` is the service. With `is_prepared`
    that was imported after `prepare_imports`, and pins threads by itself.
    """
    prepare_streams()
    settings = load(settings_class, arguments, prog or f"moesaic {service}", examples=examples)
    threads = getattr(settings, "threads", None)
    if not is_prepared:
        _pin_threads(threads)

    async def life(on_ready: OnReady) -> None:
        if threads is not None:
            refuse_surroundings()
        # What is imported now takes seconds on a busy machine.
        if listen := getattr(settings, "listen", None):
            logger.info("starting, to listen on %s", listen)
        app = _import(f"services.{service}.app")
        await app.run(settings, on_ready=on_ready)

    shows_metrics = bool(getattr(settings, "http_listen", ""))
    _leave(run_process(life, service=service, shows_metrics=shows_metrics))


def run_process(
    life: Callable[[OnReady], Coroutine[Any, Any, None]],
    *,
    service: str,
    shows_metrics: bool = False,
) -> int:
    """Run `life` in an event loop with logging and telemetry; the exit code, as `exit_code_of` has
    it. Of a service that `shows_metrics` they are collected in any case.
    """
    process = load(ProcessSettings, (), f"moesaic {service}")
    telemetry = load_telemetry(f"moesaic {service}")
    _choose_modules(process)
    keep_freed_memory()
    configure_logging(service, process.log_level)
    announcement = Announcement(process.announce_fd) if process.announce_fd is not None else None
    _die_with(process.parent_pid)
    measured = telemetry.metrics is not None or process.metrics_port is not None or shows_metrics

    def run() -> None:
        with configure_telemetry(
            *(service, uuid.uuid4().hex, telemetry),
            metrics_at=process.metrics_at,
            shows_metrics=shows_metrics,
        ):
            run_in_loop(_live(life(_announcer(announcement)), measured))

    return exit_code_of(run, command=service)


def prepare_imports(name: str) -> None:
    """Settle what torch and the modules in C read when they are imported, for processes that are
    forked from this one; torch computes on one thread until it is told otherwise.
    """
    prepare_streams()
    _choose_modules(load(ProcessSettings, (), f"moesaic {name}"))
    _pin_threads(1)


def exit_code_of(run: Callable[[], int | None], *, command: str) -> int:
    """Call `run` and tell how it ended: what it returned, 130 when interrupted, 1 when it failed.

    A ServingError is one line on stderr, as is what the system has no more of; anything else is a
    traceback in the log.
    """
    try:
        return run() or 0
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    except (ServingError, OSError) as error:
        return _report_failure(command, [error])
    except BaseExceptionGroup as group:
        return _report_failure(command, flatten_group(group))


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


def _choose_modules(process: ProcessSettings) -> None:
    # Read where the modules in C are imported, by every process alike.
    if process.kernels is not None:
        os.environ[KERNELS_VARIABLE] = process.kernels
    if process.native_streams is not None:
        os.environ[STREAMS_VARIABLE] = process.native_streams


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        logger.debug("%s cannot be imported", module, exc_info=error)
        raise BadState(f"{error}") from error


def _report_failure(command: str, errors: Sequence[BaseException]) -> int:
    for error in errors:
        if isinstance(error, ServingError):
            print(f"moesaic {command}: {error}", file=sys.stderr, flush=True)
        elif isinstance(error, OSError) and error.errno in SHORTAGES:
            where = f" ({error.filename})" if error.filename is not None else ""
            print(
                f"moesaic {command}: the system refuses: {error.strerror}{where}",
                file=sys.stderr,
                flush=True,
            )
        else:
            logger.critical("the process failed", exc_info=error)
    return FAILED_EXIT


def _leave(code: int) -> NoReturn:
    # The interpreter would take the modules of torch apart one by one for seconds; the kernel frees
    # them at once.
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _pin_threads(threads: int | None) -> None:
    if threads is None:
        return
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before its number of threads was set")
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    os.environ.update(WAITING)


def _die_with(parent_pid: int | None) -> None:
    """Be told to stop when the parent dies, however it dies; Linux only."""
    if parent_pid is None or not sys.platform.startswith("linux"):
        return
    threading.Thread(target=_end_as_orphan, args=(parent_pid,), name="orphan", daemon=True).start()
    signal_at_death_of(parent_pid, signal.SIGTERM)


def _end_as_orphan(parent_pid: int) -> None:
    """End the process for good when it still drains long after its parent died: nobody is there to
    do so.
    """
    while os.getppid() == parent_pid:
        time.sleep(1.0)
    time.sleep(ORPHAN_SECONDS)
    os._exit(FAILED_EXIT)
