"""A deadline that passes ends the request wherever it is, and says where that was."""

import asyncio
from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.deadline import Deadline
from services.gateway.tokeniser import Tokeniser
from services.wire.errors import DeadlinePassed
from tests.gateway.gateway_client import failure_of, running_gateway
from tests.gateway.router_double import RouterDouble, finished, token

EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
SHORT: dict[str, Any] = {"default_timeout_seconds": 0.2}


async def without_deadline(client: Any) -> tuple[grpc.StatusCode, str]:
    return await failure_of(client.stub.Generate(pb.GenerateRequest(text="hello")))


async def test_in_tokenisation(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*_: Any) -> list[int]:
        return await never()

    monkeypatch.setattr(Tokeniser, "encode", stuck)
    async with running_gateway(RouterDouble(), **SHORT) as client:
        assert await without_deadline(client) == (
            EXCEEDED,
            "the request's time was up while it was tokenised",
        )


async def test_in_the_wait_for_the_clients_rate() -> None:
    async with running_gateway(
        RouterDouble(answer=[5]), requests_per_second=0.001, **SHORT
    ) as client:
        await client.complete()
        status, message = await without_deadline(client)
    assert (status, message) == (
        EXCEEDED,
        "the request's time was up while it waited for its client's rate",
    )


async def test_in_the_queue() -> None:
    router = RouterDouble(sequences=0)
    async with running_gateway(router, **SHORT) as client:
        status, message = await without_deadline(client)
        assert (status, message) == (
            EXCEEDED,
            "the request's time was up while it waited for a router",
        )
        router.sequences = 1
        router.grant()
        call = client.generate("another")
        assert (await router.next_sequence()).sequence == 1  # the first one was never submitted
        call.cancel()


async def test_at_a_router_that_does_not_notice() -> None:
    router = RouterDouble()
    async with running_gateway(router, **SHORT) as client:
        status, message = await without_deadline(client)
        number = (await router.next_sequence()).sequence
        assert await router.cancels.get() == number
    assert (status, message) == (
        EXCEEDED,
        "the request's time was up while the model was generating",
    )


async def test_at_the_router() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate()
        number = (await router.next_sequence()).sequence
        router.say(token(number, 5), finished(number, common_pb2.FINISH_REASON_DEADLINE))
        status, _ = await failure_of(call)
    assert status == EXCEEDED


async def test_the_clients_own_deadline_reaches_the_router() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate(timeout=1)
        asked = await router.next_sequence()
        assert 0 < asked.remaining_nanos < 2e9
        assert (await failure_of(call))[0] == EXCEEDED
        assert await router.cancels.get() == asked.sequence


async def test_no_client_gets_more_than_the_most_time() -> None:
    router = RouterDouble(answer=[5])
    limits: dict[str, Any] = {"default_timeout_seconds": 5, "max_timeout_seconds": 5}
    async with running_gateway(router, **limits) as client:
        await client.complete(timeout=3_000)
        assert (await router.next_sequence()).remaining_nanos <= 5e9


async def test_a_deadline_bounds_what_is_awaited() -> None:
    with pytest.raises(DeadlinePassed, match="while nothing happened"):
        await Deadline.after(0).bound(never(), "nothing happened")
    assert Deadline.after(-1).remaining_nanos == 1


async def never() -> Any:
    await asyncio.Event().wait()
