"""A running gateway's HTTP port for tests, and what its answers say."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.rig.certificates import Certificates
from tests.gateway.gateway_client import Client, running_gateway
from tests.gateway.router_double import RouterDouble

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Answer:
    """One response, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """What it says went wrong, which it has to say."""
        return self.document["error"]

    @property
    def events(self) -> list[Any]:
        """The documents of a stream, which has to end with [DONE]."""
        assert self.said[-1] == "[DONE]"
        return self.documents[:-1]

    @property
    def documents(self) -> list[Any]:
        """What a stream says, [DONE] as None."""
        return [None if event == "[DONE]" else json.loads(event) for event in self.said]

    @property
    def said(self) -> list[str]:
        """What a stream says, event by event, comments left out."""
        *events, end = self.body.decode().split("\n\n")
        assert end == ""
        return [event.removeprefix("data: ") for event in events if not event.startswith(":")]


def streamed(answer: Answer | bytes) -> list[Any]:
    """The documents of a stream, or of some of its events."""
    if isinstance(answer, Answer):
        return answer.events
    return Answer(200, {}, answer).documents


class HttpClient:
    """Calls a gateway over HTTP; `grpc` is a client of the same one."""

    def __init__(self, session: aiohttp.ClientSession, grpc: Client) -> None:
        self.session = session
        self.grpc = grpc

    @property
    def port(self) -> int:
        return self.grpc.http_port

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, path, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(
        self, path: str, *, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Answer:
        """A request of these fields."""
        return await self.ask("POST", path, json=fields, headers=headers)

    async def chat(self, **fields: Any) -> Answer:
        return await self.post(CHAT, **{"messages": MESSAGES} | fields)

    async def text(self, **fields: Any) -> Answer:
        return await self.post(TEXT, **{"prompt": "a ship"} | fields)


@asynccontextmanager
async def http_gateway(
    *doubles: RouterDouble, certificates: Certificates | None = None, **settings: Any
) -> AsyncIterator[HttpClient]:
    """A gateway in front of doubles, with a client of its HTTP port."""
    async with running_gateway(
        *doubles, certificates=certificates, **{"http_listen": "127.0.0.1:0"} | settings
    ) as grpc:
        async with http_session(grpc.http_port) as session:
            yield HttpClient(session, grpc)


@asynccontextmanager
async def http_session(port: int, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Of a client that calls this port."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", timeout=timeout, **options
    ) as session:
        yield session
