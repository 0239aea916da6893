"""The client that goes on elsewhere: what it asks the next gateway for, and when it gives up."""

from collections.abc import AsyncIterator

import grpc
import pytest

from moesaic.client import generate
from moesaic.v1 import common_pb2, generation_pb2_grpc
from moesaic.v1 import generation_pb2 as pb
from services.wire.errors import InvalidRequest, Overloaded, ServingError, Unavailable
from tests.cli.command_line import scripted

STARTED = pb.Started(request_id="made up", seed=3, prompt_tokens=2, max_new_tokens=5)
NOBODY = "127.0.0.1:1"


def delta(token_id: int, started: pb.Started | None = None) -> pb.GenerateResponse:
    return pb.GenerateResponse(delta=pb.Delta(token_ids=[token_id]), started=started)


class Breaking(generation_pb2_grpc.GenerationServiceServicer):
    """Gives one token more than it is told of, then fails: as often as there are `errors`."""

    def __init__(self, *errors: ServingError, started: pb.Started | None = STARTED) -> None:
        self.requests: list[pb.GenerateRequest] = []
        self._errors = list(errors)
        self._started = started

    async def Generate(
        self, request: pb.GenerateRequest, context: object
    ) -> AsyncIterator[pb.GenerateResponse]:
        self.requests.append(request)
        if self._errors and self._errors[0].retry_after_seconds is None:
            yield delta(len(request.resume.generated_token_ids), self._started)
        if self._errors:
            raise self._errors.pop(0)
        yield pb.GenerateResponse(completion=pb.Completion(), started=self._started)


async def told(service: Breaking, max_tries: int = 3) -> list[int]:
    """The tokens of a request to a gateway that is the second of two."""
    register = generation_pb2_grpc.add_GenerationServiceServicer_to_server
    async with scripted(register, service) as address:
        events = generate(pb.GenerateRequest(text="a"), [NOBODY, address], max_tries=max_tries)
        return [each async for event in events for each in event.delta.token_ids]


async def test_the_next_gateway_hears_all_that_came() -> None:
    full = Overloaded("full", retry_after_seconds=0.001)
    service = Breaking(Unavailable("lost"), full, Unavailable("lost"))
    assert await told(service, max_tries=5) == [0, 1]
    first, *_, last = service.requests
    assert not first.HasField("resume")
    assert last.request_id == first.request_id != ""
    assert last.resume == pb.Resume(seed=3, generated_token_ids=[0, 1])
    assert last.stop == common_pb2.StopConditions(max_new_tokens=5)


async def test_tries_without_a_message_are_counted() -> None:
    full = Overloaded("full", retry_after_seconds=0.001)
    service = Breaking(Unavailable("lost"), full, full, full)
    with pytest.raises(grpc.aio.AioRpcError):
        await told(service, max_tries=4)
    assert len(service.requests) == 2  # the other gateway was asked as often, and once before


async def test_a_gateway_that_cannot_be_reached_is_told_of_after_as_many_tries_as_asked_for() -> (
    None
):
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async for _ in generate(pb.GenerateRequest(text="a"), [NOBODY], max_first_tries=2):
            pass
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("error", [InvalidRequest("no"), Overloaded("full")])
async def test_a_refusal_before_the_first_message_is_the_answer(error: ServingError) -> None:
    error.retry_after_seconds = 0.001
    service = Breaking(error)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await told(service)
    assert failure.value.code() is error.status
    assert len(service.requests) == 1


async def test_a_gateway_that_does_not_say_how_to_go_on_is_not_gone_on_with() -> None:
    service = Breaking(Unavailable("lost"), started=None)
    with pytest.raises(grpc.aio.AioRpcError):
        await told(service)
    assert len(service.requests) == 1
