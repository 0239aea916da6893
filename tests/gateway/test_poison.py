"""What one request or one router does wrong ends that one: the gateway serves all others."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2, router_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.admission import Admission
from services.gateway.deadline import Deadline
from services.gateway.detokeniser import Detokeniser
from services.gateway.ledger import StreamLedger
from services.gateway.requests import CheckedRequest, RequestReader
from services.gateway.sequence import Order
from services.gateway.sequence import Sequence as GatewaySequence
from services.gateway.token_texts import TokenTexts
from services.gateway.tokeniser import Tokeniser
from services.wire.sampling import Sampling
from tests.gateway.gateway_client import Client, failure_of, running_gateway
from tests.gateway.router_double import RouterDouble, finished, token

MOST_32, MOST_64 = (1 << 32) - 1, (1 << 64) - 1
INTERNAL = grpc.StatusCode.INTERNAL
HUGE_PHASE = common_pb2.PhaseReceipt(
    **{field.name: MOST_64 for field in common_pb2.PhaseReceipt.DESCRIPTOR.fields}
)
HUGE_RECEIPT = common_pb2.LatencyReceipt(
    end_to_end_nanos=MOST_64,
    prefill=HUGE_PHASE,
    decode=HUGE_PHASE,
    retries=MOST_32,
    hedges=MOST_32,
    slowest_service="\x1b[2J" * 100,
)


class Panic(BaseException):
    """What compiled libraries raise: no Exception."""


@asynccontextmanager
async def beside(client: Client, router: RouterDouble) -> AsyncIterator[None]:
    """A request that is under way while the block lasts, and ends well after it."""
    events = aiter(client.generate("innocent"))
    sequence = await router.next_sequence()
    router.say(token(sequence.sequence, 5))
    assert (await anext(events)).HasField("delta")
    yield
    router.say(token(sequence.sequence, 6), finished(sequence.sequence))
    *_, last = [event async for event in events]
    assert last.completion.finish_reason == common_pb2.FINISH_REASON_LENGTH
    assert await client.health() == "SERVING"
    assert router.num_streams == 1


def order(**sampling: Any) -> Order:
    fields: dict[str, Any] = {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "seed": 1,
    } | sampling
    return Order((1, 2), Sampling(**fields), 4, (), False, 0, "", "", Deadline.after(60), "client")


async def test_a_sequence_that_cannot_be_written_fails_and_its_batch_is_sent_without_it() -> None:
    admission, ledger = Admission(max_requests=9, max_tokens=99), StreamLedger("here:1")
    bad, good = (
        GatewaySequence(made, admission.enter("client"), now_nanos=0)
        for made in (order(top_k=-1), order(top_k=1))
    )
    ledger.submit([bad, good])
    message = ledger.next_message()
    assert message is not None
    assert [request.sampling.top_k for request in message.submit.sequences] == [1]
    assert len(ledger) == 1
    with pytest.raises(Exception, match="the service's log says why"):
        await bad.next_portion()


async def test_a_batch_of_which_nothing_can_be_written_is_counted_by_the_router_all_the_same() -> (
    None
):
    admission, ledger = Admission(max_requests=9, max_tokens=99), StreamLedger("here:1")
    ledger.submit([GatewaySequence(order(seed=-1), admission.enter("client"), now_nanos=0)])
    message = ledger.next_message()
    assert message is not None
    assert message.HasField("submit")
    assert ledger.room.sequences == 0
    credit = router_pb2.Credit(sequences=2, kv_tokens=9, acknowledged_submits=1)
    ledger.apply(router_pb2.RunResponse(credit=credit), now_nanos=0)
    assert ledger.room.sequences == 2


async def test_a_request_that_cannot_be_given_to_a_router_ends_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate = RequestReader.generate

    def poisoned(reader: RequestReader, request: pb.GenerateRequest) -> CheckedRequest:
        wanted = generate(reader, request)
        return (
            replace(wanted, sampling=replace(wanted.sampling, top_k=-1))
            if request.text == "poison"
            else wanted
        )

    monkeypatch.setattr(RequestReader, "generate", poisoned)
    router = RouterDouble()
    async with running_gateway(router) as client, beside(client, router):
        assert (await client.refused("poison"))[0] is INTERNAL
        assert await router.submits.get() == []


@pytest.mark.parametrize("error", [KeyError("secret"), Panic("secret")])
async def test_a_token_that_cannot_be_decoded_ends_its_request_alone(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(token_ids: Sequence[int]) -> str:
        if 7 in token_ids:
            raise error
        return "a" * len(token_ids)

    texts = TokenTexts(decode, lambda _: True)
    monkeypatch.setattr(Tokeniser, "detokeniser", lambda *_, **__: Detokeniser(texts))
    router = RouterDouble()
    async with running_gateway(router) as client, beside(client, router):
        call = client.generate("poison")
        sequence = await router.next_sequence()
        router.say(token(sequence.sequence, 7))
        status, message = await failure_of(call)
        assert (status, "secret" in message) == (INTERNAL, False)
        assert await router.cancels.get() == sequence.sequence


def odd_events(
    number: int,
) -> dict[str, tuple[Iterable[router_pb2.SequenceEvent], grpc.StatusCode]]:
    """What a router may say of a sequence, and how that ends it."""
    error, ok = common_pb2.FINISH_REASON_ERROR, grpc.StatusCode.OK
    event = router_pb2.SequenceEvent
    return {
        "nothing": ([event(sequence=number)], INTERNAL),
        "an end without a reason": (
            [event(sequence=number, finish=router_pb2.SequenceFinish())],
            INTERNAL,
        ),
        "a reason that there is not": ([finished(number, 99)], INTERNAL),  # type: ignore[arg-type]
        "a negative reason": ([finished(number, -5)], INTERNAL),  # type: ignore[arg-type]
        "an error that is none": ([finished(number, error)], INTERNAL),
        "a status that there is not": (
            [
                event(
                    sequence=number,
                    finish=router_pb2.SequenceFinish(reason=error, status_code=MOST_32),
                )
            ],
            INTERNAL,
        ),
        "a long reason": (
            [
                finished(
                    number,
                    error,
                    status=grpc.StatusCode.NOT_FOUND,
                    message="no\n\x1b[2J" + "é" * 50_000,
                )
            ],
            grpc.StatusCode.NOT_FOUND,
        ),
        "two ends": ([finished(number), finished(number)], ok),
        "a token after the end": ([finished(number), token(number, 1)], ok),
        "unknown sequences": ([token(MOST_64, 1), finished(0), finished(number)], ok),
        "the largest token id": ([token(number, MOST_32), finished(number)], ok),
        "more tokens than asked for": ([token(number, 1)] * 40, INTERNAL),
        "huge numbers": (
            [
                finished(
                    number, receipt=HUGE_RECEIPT, router_nanos=MOST_64, overflowed_pairs=MOST_64
                )
            ],
            ok,
        ),
    }


@pytest.mark.parametrize("case", odd_events(0))
async def test_whatever_a_router_says_of_one_sequence_ends_no_other(case: str) -> None:
    router = RouterDouble()
    async with running_gateway(router) as client, beside(client, router):
        call = client.generate("poison")
        sequence = await router.next_sequence()
        events, expected = odd_events(sequence.sequence)[case]
        router.say(*events)
        if expected is grpc.StatusCode.OK:
            assert [event async for event in call][-1].HasField("completion")
        else:
            status, message = await failure_of(call)
            assert status is expected
            assert message.isprintable()


async def test_credit_of_any_size_is_understood() -> None:
    router = RouterDouble(sequences=MOST_32, kv_tokens=MOST_64, answer=[1])
    async with running_gateway(router) as client:
        _, completion = await client.complete(stop=common_pb2.StopConditions(max_new_tokens=1))
    assert completion.usage.completion_tokens == 1


@pytest.mark.parametrize("damaged", ["num_damaged_descriptions", "num_damaged_responses"])
async def test_a_message_of_a_router_that_cannot_be_read_costs_its_stream_and_nothing_else(
    damaged: str,
) -> None:
    router = RouterDouble(answer=[1])
    setattr(router, damaged, 2)
    async with running_gateway(router) as client:  # which is when it has been asked again
        _, completion = await client.complete(stop=common_pb2.StopConditions(max_new_tokens=1))
        assert completion.usage.completion_tokens == 1


@pytest.mark.parametrize(
    "status", [None, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, INTERNAL]
)
async def test_a_stream_that_a_router_ends_is_opened_again_whatever_its_status(
    status: grpc.StatusCode | None,
) -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate(stop=common_pb2.StopConditions(max_new_tokens=1))
        await router.next_sequence()
        router.break_stream(status)
        again = await router.next_sequence()
        router.say(token(again.sequence, 1), finished(again.sequence))
        async with asyncio.timeout(10):
            assert [event async for event in call][-1].HasField("completion")


@pytest.mark.parametrize(
    "metadata",
    [
        (("traceparent", "00-" + "f" * 5000),),
        (("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-zz"), ("tracestate", "=,;" * 1000)),
        (("traceparent", "ff-" + "a" * 32 + "-" + "b" * 16 + "-01"), ("authorization", "~" * 4000)),
        (("traceparent-bin", b"\x00\xff"), ("authorization-bin", b"\xff")),
    ],
)
async def test_metadata_without_a_meaning_is_ignored(metadata: tuple[tuple[str, Any], ...]) -> None:
    async with running_gateway(RouterDouble(answer=[1])) as client:
        stop = common_pb2.StopConditions(max_new_tokens=1)
        _, completion = await client.complete(metadata=metadata, stop=stop)
    assert completion.usage.completion_tokens == 1
