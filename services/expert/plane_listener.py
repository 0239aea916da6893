"""Where the native plane listens: beside the main port, on the same host."""

import asyncio
import socket

from services.runtime.host_port import split_host_port
from services.runtime.server import PortInUse

BACKLOG = 128
_ANY_IPV6 = "::"


async def listen_beside(listen: str, port: int) -> socket.socket:
    """A listening socket that does not block, on `port`, 0 for any free one, of the host of
    `listen`. Raises PortInUse.
    """
    host, _ = split_host_port(listen, lowest_port=0)
    if host == _ANY_IPV6 and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, where = found[0]
        listener = socket.create_server(
            (str(where[0]), port),
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=host == _ANY_IPV6,
        )
    except OSError as error:
        raise PortInUse(
            f"cannot listen on port {port} of {host} for native streams: the port is in use or the "
            "address is not this machine's"
        ) from error
    listener.setblocking(False)
    return listener
