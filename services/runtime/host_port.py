"""What an address is: `host:port`, an IPv6 host in brackets.

Apart from the channels that use it, so that what starts without gRPC can check one too.
"""

import ipaddress
import re

MAX_PORT = 65_535
FORM = "it should be host:port"
# A name of labels as DNS has them, or an IPv4 address.
HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?")
LOCAL_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")
SCHEME = re.compile(r"[^:/]*:/+")


def split_host_port(address: str, *, lowest_port: int = 1) -> tuple[str, int]:
    """`host:port` in its parts, an IPv6 host without its brackets; a port of 0 is any free one to
    listen on.

    Raises ValueError, saying the form and what is wrong, for anything else.
    """
    if scheme := SCHEME.match(address):
        raise ValueError(f"{FORM}, without {scheme[0]}")
    host, colon, port = address.rpartition(":")
    if not colon or (address.startswith("[") and address.endswith("]")):
        raise ValueError(f"{FORM}, and the port is missing")
    if not (port.isascii() and port.isdecimal()):
        raise ValueError(f"{FORM}, and {port!r} is no port")
    if not lowest_port <= int(port[:10]) <= MAX_PORT:
        raise ValueError(f"{FORM}, with a port from {lowest_port} to {MAX_PORT}")
    return _host(host), int(port)


def with_port(address: str, port: int) -> str:
    """The address with this port where it is a host alone; else as it is."""
    is_host = HOST.fullmatch(address) and not address.isdecimal()
    is_ipv6 = address.startswith("[") and address.endswith("]") and _is_ipv6(address[1:-1])
    return f"{address}:{port}" if is_host or is_ipv6 else address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name, which nobody else reaches it by."""
    name = host.lower().rstrip(".")
    if name in LOCAL_NAMES or name.endswith(".localhost"):
        return True
    address = address_of(host)
    return address is not None and address.is_loopback


def is_unspecified(host: str) -> bool:
    """Whether a host is all of this machine's addresses to listen on, and itself to send to."""
    address = address_of(host)
    return address is not None and address.is_unspecified


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """What a host is that is no name, an IPv4 address where it stands for one; None for a name."""
    try:
        address = ipaddress.ip_address(host.rstrip(".").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _host(host: str) -> str:
    if host.startswith("[") and host.endswith("]") and _is_ipv6(host[1:-1]):
        return host[1:-1]
    if _is_ipv6(host):
        raise ValueError(f"{FORM}, with an IPv6 address in brackets such as [::1]:50051")
    if not HOST.fullmatch(host):
        raise ValueError(
            f"{FORM}, and {host!r} is no host" if host else f"{FORM}, and the host is missing"
        )
    return host


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
