"""Which clusters `moesaic serve` runs on this machine: each keeps a small file, by which other
commands find it.

The file is in a folder of the user's alone, and as private. One whose process is gone, or whose
number another process has, stands for nothing and is removed by the next cluster.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, get_origin

from services.cli.life_of_processes import is_living, is_over, started_at, this_machine

Made = TypeVar("Made", "RunningService", "RunningCluster")

FOLDER = "moesaic"
STARTING, SERVING, STOPPING = "starting", "serving", "stopping"
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class RunningService:
    """One process of a cluster; `started` is as `started_at` has it. Both are 0 where it has none
    at the moment.
    """

    name: str
    service: str
    address: str
    pid: int
    started: int


@dataclass(frozen=True)
class RunningCluster:
    """Where a cluster is reached, and by which processes.

    `http` is host:port and `tracing` a URL, either empty where there is none. `state` is
    `starting`, `serving` or `stopping`.
    """

    services: tuple[RunningService, ...]
    state: str = STARTING
    http: str = ""
    tracing: str = ""
    pid: int = field(default_factory=os.getpid)
    started: int = field(default_factory=lambda: started_at(os.getpid()) or 0)
    machine: str = field(default_factory=this_machine)
    version: str = field(default_factory=lambda: metadata.version("moesaic"))

    @property
    def gateway(self) -> str:
        """host:port of its gateway; empty where it has none."""
        return self._first("gateway")

    @property
    def router(self) -> str:
        """host:port of its first router; empty where it has none."""
        return self._first("router")

    @property
    def names(self) -> dict[str, str]:
        """What its services are called, by their addresses."""
        return {one.address: one.name for one in self.services}

    @property
    def is_living(self) -> bool:
        """Whether its process is that of then, and here."""
        return is_living(self.machine, self.pid, self.started)

    def _first(self, service: str) -> str:
        return next((one.address for one in self.services if one.service == service), "")


Record = Callable[[RunningCluster], None]


def running_clusters() -> list[RunningCluster]:
    """Those of this user that run now, the newest first."""
    read = (_read(file) for folder in folders() for file in _files(folder))
    living = [cluster for cluster in read if cluster is not None and cluster.is_living]
    return sorted(living, key=lambda one: (one.started, one.pid), reverse=True)


def newest_cluster() -> RunningCluster | None:
    """The one that a command means which names none: the newest that serves."""
    return next((cluster for cluster in running_clusters() if cluster.state == SERVING), None)


@contextmanager
def recorded(complain: Callable[[str], None]) -> Iterator[Record]:
    """Writes down, each time that it is called, what this process runs, until the block ends.

    Where nothing can be written `complain` is told once: the cluster serves all the same.
    """
    written: list[Path] = []
    complained = False

    def record(cluster: RunningCluster) -> None:
        nonlocal complained
        try:
            if not written:
                written.append(_new_file())
            _write(written[0], cluster)
        except OSError as error:
            if not complained:
                complain(f"other commands will not find this cluster by themselves: {error}")
            complained = True

    try:
        yield record
    finally:
        for file in written:
            with suppress(OSError):
                file.unlink(missing_ok=True)


def folders() -> list[Path]:
    """Where such files may be: first the session's own folder, which is gone after the last
    logout, then the cache.
    """
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    # After `su` it may be another user's.
    is_ours = bool(session) and os.access(session, os.W_OK | os.X_OK)
    found = [Path(session) / FOLDER] if is_ours else []
    return [*found, cache_folder()]


def cache_folder() -> Path:
    """Where this user's commands keep what may be lost."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return Path(cache if os.path.isabs(cache) else Path("~/.cache").expanduser()) / FOLDER


def _new_file() -> Path:
    folder = folders()[0]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in _files(folder):
        cluster = _read(file)
        if cluster is None or is_over(cluster.machine, cluster.pid, cluster.started):
            file.unlink(missing_ok=True)
    return folder / f"cluster-{os.getpid()}.json"


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("cluster-*.json"))
    except PermissionError:  # not this user's
        return []


def _write(file: Path, cluster: RunningCluster) -> None:
    beside = file.with_suffix(".part")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as writing:
        json.dump(asdict(cluster), writing, indent=1)
    beside.replace(file)


def _read(file: Path) -> RunningCluster | None:
    """What the file says; None where it says nothing that makes sense, or is gone."""
    try:
        with open(file, encoding="utf-8") as reading:
            return _cluster(json.loads(reading.read(MAX_BYTES)))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _cluster(document: Any) -> RunningCluster:
    services = tuple(_made(RunningService, one) for one in document["services"])
    return _made(RunningCluster, {**document, "services": services})


def _made(kind: type[Made], values: Any) -> Made:
    """Raises TypeError for a value of another type: whoever reads a file trusts it no further."""
    known = {name: values[name] for name in kind.__annotations__}
    made = kind(**known)  # a newer version of us may say more
    for name, expected in kind.__annotations__.items():
        wanted: Any = get_origin(expected) or expected
        if not isinstance(getattr(made, name), wanted):
            raise TypeError(f"{name} is of another type")
    return made
