"""Where a local cluster listens: at the usual ports where they are free, else at the next ones."""

import errno
import socket
from collections.abc import Callable, Collection

from services.runtime.host_port import MAX_PORT, split_host_port
from services.wire.errors import BadState

GATEWAY, ROUTER = "127.0.0.1:50051", "127.0.0.1:50052"
HTTP, TRACING = "127.0.0.1:8000", "127.0.0.1:16686"
GATEWAY_PORT, ROUTER_PORT, EXPERT_PORT, TRACING_PORT = 50051, 50052, 50053, 16686
# What one service usually has is not another's next one.
USUAL_PORTS = {split_host_port(address)[1] for address in (GATEWAY, ROUTER, HTTP, TRACING)}
MAX_TRIES = 100
# By which a host is reached that stands for all addresses.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


def usual_or_next(
    address: str, who: str, report: Callable[[str], None], others: Collection[str] = ()
) -> str:
    """The address where nobody listens there, else its host with the next free port, which is said.

    `others` are addresses that are chosen already, where nobody listens yet. Port 0 stays what it
    is. Raises BadState where no port is free, or the host is not this one's.
    """
    host, port = split_host_port(address, lowest_port=0)
    if not port and _is_free(address, host, port):
        return address
    not_mine = USUAL_PORTS - {port} | {split_host_port(each, lowest_port=0)[1] for each in others}
    for candidate in range(port, min(port + MAX_TRIES, MAX_PORT + 1)):
        if candidate not in not_mine and _is_free(address, host, candidate):
            break
    else:
        raise BadState(f"cannot listen on {address}, nor on the ports after it: all are in use")
    chosen = f"{address.rpartition(':')[0]}:{candidate}"
    if candidate != port:
        report(f"{address} is taken by somebody else: {who} is at {chosen}")
    return chosen


def refuse_taken(address: str) -> None:
    """Raise BadState where somebody listens at the address already, or nobody can."""
    host, port = split_host_port(address, lowest_port=0)
    if not _is_free(address, host, port):
        raise BadState(f"cannot listen on {address}: it is taken by somebody else")


def to_call(address: str) -> str:
    """Where a service of this machine is called that listens at the address: all addresses include
    the loopback one.
    """
    host, _, port = address.rpartition(":")
    return f"{LOOPBACK.get(host, host)}:{port}"


def _is_free(address: str, host: str, port: int) -> bool:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family):
            return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise BadState(f"cannot listen on {address}: {error.strerror}") from error
    return False
