"""Client channels to other services, and the addresses that a name stands for."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import grpc

from services.runtime.addresses import DNS_SCHEME
from services.runtime.host_port import split_host_port
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.tls_files import Authority, TlsFiles
from services.wire.errors import InvalidRequest, Unavailable
from services.wire.quoting import quoted

RESOLVE_SECONDS = 5.0
# A peer that vanished without a word is noticed within fifteen seconds.
SILENCE_SECONDS = 10.0
ANSWER_SECONDS = 5.0

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted peer is back in use at once: gRPC's own backoff grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Services talk to each other directly; a proxy meant for the web would only break that.
    ("grpc.enable_http_proxy", 0),
)


def open_channel(
    address: str,
    *,
    silence_seconds: float = SILENCE_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
    tls: TlsFiles | Authority | None = None,
    server_name: str | None = None,
    is_apart: bool = False,
) -> grpc.aio.Channel:
    """A channel with message sizes, keepalive and reconnection fit for long streams; the caller
    closes it.

    A peer that says nothing for `silence_seconds` is asked by a PING, idle or not, and given up
    when it has not answered a PING for `answer_seconds`. With `tls` its certificate is to be the
    authority's, and of `server_name`, or where that is not said of the address's host. With
    `is_apart` it connects at once, even where other channels of this process wait before they try
    that address again. Raises BadState when certificates cannot be used.
    """
    answer = round(1000 * answer_seconds)
    keepalive = (
        ("grpc.keepalive_time_ms", round(1000 * silence_seconds)),
        ("grpc.keepalive_timeout_ms", answer),
        # gRPC sends PINGs for other reasons, too, and waits a minute for their answers otherwise.
        ("grpc.http2.ping_timeout_ms", answer),
    )
    apart = ("grpc.use_local_subchannel_pool", int(is_apart))
    options: tuple[tuple[str, int | str], ...] = (*CHANNEL_OPTIONS, *keepalive, apart)
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    if server_name is not None:
        options = (*options, ("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(address, _credentials(tls), options=options)


def _credentials(tls: TlsFiles | Authority) -> grpc.ChannelCredentials:
    if isinstance(tls, Authority):
        return grpc.ssl_channel_credentials(tls.read())
    material = tls.read()
    return grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)


async def resolve(target: str, *, timeout_seconds: float = RESOLVE_SECONDS) -> list[str]:
    """The addresses that `target` stands for, ordered.

    `host:port` is one service and comes back as it is. `dns:///name:port` is one service for each A
    record of the name (for each AAAA record where it has no A record, so that a dual-stack service
    counts once). Raises InvalidRequest for a target without a port or with an impossible name, and
    Unavailable when the name cannot be looked up in time.
    """
    host, port = split_address(target.removeprefix(DNS_SCHEME), lowest_port=1)
    if not target.startswith(DNS_SCHEME):
        return [target]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_seconds):
            records = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise Unavailable(f"cannot look up {host}: {str(error) or 'no answer in time'}") from error
    return _addresses(records)


def split_address(address: str, *, lowest_port: int = 0) -> tuple[str, int]:
    """`host:port` in its parts, as `split_host_port` has them. Raises InvalidRequest when it is no
    such thing.
    """
    try:
        return split_host_port(address, lowest_port=lowest_port)
    except ValueError as error:
        raise InvalidRequest(f"{quoted(address)} is no address: {error}") from error


def _addresses(records: Sequence[tuple[Any, ...]]) -> list[str]:
    four = {
        f"{host}:{port}"
        for family, _, _, _, (host, port, *_) in records
        if family == socket.AF_INET
    }
    six = {
        f"[{host}]:{port}"
        for family, _, _, _, (host, port, *_) in records
        if family == socket.AF_INET6
    }
    return sorted(four or six)
