"""Sends a signal's messages to a collector as they are, by HTTP."""

import gzip
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from services.runtime.otlp.destination import ExportTarget
from services.runtime.otlp.not_taken import NotTaken

# As OTLP's specification has it.
MAY_PASS = {429, 502, 503, 504}
MAX_ANSWER_BYTES = 1 << 20


class HttpSender:
    """A collector's URL. A proxy meant for the web is used for collectors of other
    machines alone.
    """

    def __init__(self, destination: ExportTarget) -> None:
        handlers: list[Any] = [_NoRedirects()]
        if destination.security is not None:
            handlers.append(HTTPSHandler(context=destination.security.context()))
        if destination.endpoint.is_loopback:
            handlers.append(ProxyHandler({}))
        self._opener = build_opener(*handlers)
        self._url, self._is_compressed = destination.endpoint.target, destination.is_compressed
        self._headers = {
            "User-Agent": "moesaic",
            **dict(destination.headers),
            "Content-Type": "application/x-protobuf",
            **({"Content-Encoding": "gzip"} if self._is_compressed else {}),
        }

    def send(self, message: bytes, timeout_seconds: float | None) -> bytes:
        """The collector's answer. Raises NotTaken."""
        content = gzip.compress(message) if self._is_compressed else message
        request = Request(self._url, content, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=timeout_seconds) as response:
                answer: bytes = response.read(MAX_ANSWER_BYTES)
        except HTTPError as error:
            with error:
                raise NotTaken(
                    f"status {error.code} {error.reason}", may_pass=error.code in MAY_PASS
                ) from error
        except (OSError, HTTPException) as error:
            raise NotTaken(
                str(getattr(error, "reason", error)) or type(error).__name__, may_pass=True
            ) from error
        return answer

    def close(self) -> None:
        """Nothing is kept open."""


class _NoRedirects(HTTPRedirectHandler):
    """Answers of another address are failures: what is posted would be lost on the way there."""

    def redirect_request(self, *_: Any) -> None:
        return None
