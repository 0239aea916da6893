"""The service of these tests, by our own server."""

from collections.abc import AsyncIterator

import pytest

from services.runtime.native_server import Limits, NativeServer
from services.runtime.server import MAX_MESSAGE_BYTES
from tests.runtime.native_server.echo import Echo
from tests.runtime.native_server.stranger import Served


@pytest.fixture
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    limits = getattr(request, "param", Limits(MAX_MESSAGE_BYTES, last_words_seconds=0.01))
    server, echo = NativeServer(limits), Echo()
    echo.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Served(echo, port)
    await server.stop(0)
