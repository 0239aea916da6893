"""Why nobody is reached at an address, in a sentence of our own: each library has another."""

import socket
from urllib.parse import urlsplit

from services.runtime.host_port import split_host_port

CONNECT_SECONDS = 3.0


def why_unreachable(address: str, error: Exception) -> str:
    """What is wrong with host:port, of the error that connecting to it ended in."""
    if isinstance(error, socket.gaierror):
        return f"there is no host {address.rpartition(':')[0]!r}"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on {address}"
    if isinstance(error, TimeoutError):
        return f"{address} does not answer"
    if isinstance(error, OSError) and error.strerror:
        return f"{address} cannot be reached: {error.strerror.lower()}"
    return f"{address}: {error}"


def connecting_fails(address: str, timeout_seconds: float = CONNECT_SECONDS) -> OSError | None:
    """The error that connecting to host:port, or to a URL's, ends in now; None where somebody
    listens.
    """
    host, port = split_host_port(host_port_of(address))
    try:
        with socket.create_connection((host, port), timeout_seconds):
            return None
    except OSError as error:
        return error


def host_port_of(address: str) -> str:
    """host:port of a URL, or of what is that already."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    netloc = parts.netloc.rpartition("@")[2]
    has_port = ":" in netloc.rpartition("]")[2]
    return netloc if has_port else f"{netloc}:{443 if parts.scheme == 'https' else 80}"
