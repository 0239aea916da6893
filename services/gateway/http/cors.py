"""Which pages of other origins may call, as browsers ask before they let them."""

from collections.abc import Collection

from aiohttp import hdrs, web

ANY = "*"
METHODS = "GET, POST, OPTIONS"
# Of a response, what a page may read besides its body.
EXPOSED = "X-Request-Id, X-Moesaic-Ignored, traceresponse, Server-Timing, Link, Retry-After"
MAX_AGE_SECONDS = 600


class Cors:
    """By the origins that are allowed; `*` is all of them, none is the default."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a browser's question; None where the request is none, or may not be."""
        asks = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if request.method != hdrs.METH_OPTIONS or not asks or self._allowed(request) is None:
            return None
        headers = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE_SECONDS),
        }
        wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
        if wanted is not None and wanted.isascii():
            headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted
        return web.Response(status=204, headers=headers)

    def add_headers(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Let the page that asks read the response, where it may."""
        allowed = self._allowed(request)
        if allowed is not None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = allowed
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED
        if self._origins - {ANY}:
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)

    def _allowed(self, request: web.BaseRequest) -> str | None:
        if ANY in self._origins:
            return ANY
        origin = request.headers.get(hdrs.ORIGIN)
        return origin if origin in self._origins else None
