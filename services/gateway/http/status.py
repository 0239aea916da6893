"""The routes that tell what is served, and how it is."""

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.gateway.http.inside import Inside
from services.gateway.http.openapi import openapi_document
from services.wire.errors import NotFound, ServingError
from services.wire.quoting import quoted


class StatusRoutes:
    """`check_open` raises where no request is taken, `num_requests` says how many are under way."""

    def __init__(
        self, inside: Inside, *, check_open: Callable[[], None], num_requests: Callable[[], int]
    ) -> None:
        self._inside = inside
        self._check_open = check_open
        self._num_requests = num_requests
        self._began = int(time.time())
        self._one_at_a_time = asyncio.Lock()

    async def health(self, request: web.Request) -> web.Response:
        """200 where a request would be served: a router is up, and nothing is being stopped."""
        self._check_open()
        self._inside.routers.check_reachable()
        return web.Response()

    async def version(self, request: web.Request) -> web.Response:
        """Of this program."""
        return web.json_response({"version": version("moesaic")})

    async def load(self, request: web.Request) -> web.Response:
        """How many requests are under way."""
        return web.json_response({"server_load": self._num_requests()})

    async def metrics(self, request: web.Request) -> web.Response:
        """What is measured, for Prometheus."""
        async with self._one_at_a_time:
            text = await asyncio.to_thread(generate_latest)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def models(self, request: web.Request) -> web.Response:
        """The one that is served."""
        return web.json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.Response:
        """By its name, which may have slashes."""
        name = request.match_info["name"]
        if name != self._inside.checkpoint.name:
            raise NotFound(f"model: {quoted(name)} is not served here")
        return web.json_response(self._model())

    async def openapi(self, request: web.Request) -> web.Response:
        """What can be asked."""
        return web.json_response(openapi_document())

    def _model(self) -> dict[str, Any]:
        name = self._inside.checkpoint.name
        document: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": self._began,
            "owned_by": "moesaic",
            "root": name,
            "parent": None,
        }
        try:
            document["max_model_len"] = self._inside.routers.limits.max_context
        except ServingError:  # no router says so yet
            document["max_model_len"] = None
        return document
