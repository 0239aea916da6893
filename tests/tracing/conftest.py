"""One tracing service a test."""

from collections.abc import AsyncIterator

import pytest

from tests.tracing.tracing_client import Client, tracing_client


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with tracing_client() as client:
        yield client
