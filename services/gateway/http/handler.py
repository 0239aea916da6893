"""What serves one connection: aiohttp's handler, of which nothing goes out in words of its own."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

# What stands in place of a response that aiohttp made by itself.
Instead = Callable[[web.BaseRequest, web.StreamResponse], web.StreamResponse]


class Handler(web.RequestHandler):
    """What is no HTTP, or fails before a route is asked, aiohttp answers by itself: `instead` says
    by what. `lost` is called when the connection is over.
    """

    __slots__ = ("_instead", "_lost")

    def __init__(
        self,
        server: web.Server,
        *,
        instead: Instead,
        lost: Callable[["Handler"], None],
        **options: Any,
    ) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._instead = instead
        self._lost = lost

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._lost(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        return await super().finish_response(request, self._instead(request, resp), start_time)


class _NoStrangers(logging.Filter):
    """Leaves out what is no HTTP: anybody can send it as often as they like."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


def log_without_strangers() -> logging.Logger:
    """Where handlers log what they cannot answer."""
    log = logging.getLogger(__name__)
    if not log.filters:
        log.addFilter(_NoStrangers())
    return log
