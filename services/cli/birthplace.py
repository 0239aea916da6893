"""`python -m services.cli.birthplace DESCRIPTOR MODEL`: a nursery's process. It imports what
services need that compute, then forks for each that it is asked for.

It has one thread, and nothing of gRPC's or of torch's runs in it: what a fork does not copy is not
there yet.
"""

import gc
import os
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from services.cli.birth import MAX_MESSAGE_BYTES, Birth
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.runtime.process import prepare_imports, run_service
from services.runtime.process_title import set_title

NUM_DESCRIPTORS = 3
OUTPUTS = (1, 2)


def main(arguments: list[str]) -> None:
    """Serve births until whoever started this hangs up."""
    connection = socket.socket(fileno=int(arguments[0]))
    model = Path(arguments[1]) if arguments[1] else EMBEDDED_MODEL
    prepare_imports("nursery")
    _import(model)
    if _num_threads() > 1:
        return  # who asks is told by the end that there is nobody
    sys.stdout.flush()
    gc.collect()
    gc.freeze()  # so that whoever is born here does not copy it only to look through it
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, NUM_DESCRIPTORS)
        if not message:
            return
        born = _bear(Birth.read(message), descriptors, connection)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(BrokenPipeError):  # nobody waits for it any more; it was not let go, either
            connection.send(str(born).encode())


def _import(model: Path) -> None:
    for service in ("expert", "router"):
        import_module(f"services.{service}.app")
    with suppress(Exception):  # who is to serve the model tells what is wrong with it
        import_module("services.model.family").import_family(model)


def _num_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _bear(birth: Birth, descriptors: list[int], connection: socket.socket) -> int:
    """The number of a process whose parent has ended, so that it is the child of who adopts it."""
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            os.close(reading)
            os.close(writing)
            connection.close()
            _live(birth, *descriptors)
        os.write(writing, str(child).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(parent, 0)
    with open(reading, "rb") as file:
        return int(file.read())


def _live(birth: Birth, waiting: int, announcing: int, output: int) -> NoReturn:
    os.setsid()
    for descriptor in OUTPUTS:
        os.dup2(output, descriptor)
    os.close(output)
    if not os.read(waiting, 1):
        os._exit(0)  # nobody wants it any more
    os.close(waiting)
    os.environ.update(birth.variables, MOESAIC_ANNOUNCE_FD=str(announcing))
    set_title(birth.title)
    settings = import_module(f"services.{birth.service}.settings")
    settings_class = getattr(settings, f"{birth.service.title()}Settings")
    run_service(birth.service, settings_class, birth.arguments, is_prepared=True)


if __name__ == "__main__":
    main(sys.argv[1:])
