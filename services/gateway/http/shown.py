"""What a request over HTTP shows of its caller, as a call of gRPC would."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from services.runtime.doorkeeping import peer_of

KEY_HEADER = "x-api-key"
UNKNOWN = "unknown"


class HttpShown:
    """A caller as `Clients` look at it; a key of `x-api-key` is a bearer's token, where there is no
    other.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        # Of whoever has found something out by it, as a call of gRPC has them.
        self.notes: dict[str, Any] = {}

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        headers = self._request.headers
        authorization, key = headers.get("Authorization"), headers.get(KEY_HEADER)
        if authorization is None and key is not None:
            authorization = f"Bearer {key}"
        if authorization is None or not authorization.isascii():  # as no token is
            return ()
        return (("authorization", authorization),)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS has verified; nothing where there is no certificate."""
        transport = self._request.transport
        connection = None if transport is None else transport.get_extra_info("ssl_object")
        certificate = None if connection is None else connection.getpeercert()
        if not certificate:
            return {}
        names = [value for step in certificate.get("subject", ()) for value in step]
        return {
            "x509_common_name": [text.encode() for key, text in names if key == "commonName"],
            "x509_subject_alternative_name": [
                text.encode() for _, text in certificate.get("subjectAltName", ())
            ],
        }

    def peer(self) -> str:
        """The other end, written as gRPC does."""
        transport = self._request.transport
        return UNKNOWN if transport is None else peer_at(transport)


def peer_at(transport: asyncio.BaseTransport) -> str:
    """The other end of a connection."""
    name = transport.get_extra_info("peername")
    return peer_of(name) if isinstance(name, tuple) else UNKNOWN
