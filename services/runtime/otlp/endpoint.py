"""Where a collector is: read from a URL, for gRPC from what gRPC itself understands as well."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.runtime import host_port
from services.runtime.channels import split_address
from services.wire.errors import InvalidRequest

PORTS = {"http": 80, "https": 443}
# Names that gRPC resolves by itself, whose sockets may have no host.
_GRPC_SCHEMES = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock):.+")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Endpoint:
    """A collector's address: `target` is what a channel is opened to, or what is posted to.

    `is_secure` is None where the address says nothing about it. Traffic to a loopback address is no
    proxy's matter.
    """

    target: str
    is_secure: bool | None
    is_loopback: bool


def grpc_endpoint(text: str) -> Endpoint:
    """`http://host:port`, `https://host:port`, or `host:port` and other names of gRPC's.

    Raises ValueError with what would be right.
    """
    if "://" not in text or _GRPC_SCHEMES.fullmatch(text):
        return _named(text)
    url = _Url.parse(text)
    host = f"[{url.host}]" if ":" in url.host else url.host
    return Endpoint(f"{host}:{url.port}", url.scheme == "https", is_loopback(url.host))


def http_endpoint(text: str, path: str | None) -> Endpoint:
    """A URL of `http` or `https`, with `path` added to its own; None takes it as it is.

    Raises ValueError with what would be right.
    """
    url = _Url.parse(text)
    parts = urlsplit(text)
    own = parts.path or "/"
    whole = parts._replace(path=own if path is None else f"{own.rstrip('/')}/{path}", fragment="")
    return Endpoint(whole.geturl(), url.scheme == "https", is_loopback(url.host))


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine by its very name."""
    return host_port.is_loopback(host) or host_port.is_unspecified(host)


@dataclass(frozen=True)
class _Url:
    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "_Url":
        try:
            parts = urlsplit(text)
            scheme, host, port = parts.scheme, parts.hostname, parts.port
        except ValueError:
            scheme = ""
        if scheme not in PORTS or not host or port == 0 or not _PRINTABLE.fullmatch(text):
            raise ValueError("it should be http://host:port or https://host:port")
        if "@" in parts.netloc:
            raise ValueError("credentials belong into OTEL_EXPORTER_OTLP_HEADERS")
        return cls(scheme, host, port or PORTS[scheme])


def _named(text: str) -> Endpoint:
    if _GRPC_SCHEMES.fullmatch(text):
        host = (
            text.rpartition("/")[2]
            .removeprefix("ipv4:")
            .removeprefix("ipv6:")
            .rpartition(":")[0]
            .strip("[]")
        )
        return Endpoint(text, None, text.startswith(("unix", "vsock")) or is_loopback(host))
    try:
        host, port = split_address(text)
    except InvalidRequest:
        port = 0
    if port == 0 or not _PRINTABLE.fullmatch(text):
        raise ValueError("it should be http://host:port, https://host:port or host:port")
    return Endpoint(text, None, is_loopback(host))
