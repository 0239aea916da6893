"""What one order, its listener or whoever observes does wrong ends that order: all others run to
their ends.
"""

import asyncio
import math
from typing import Any

import pytest
import torch
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from moesaic.v1 import common_pb2, router_pb2
from services.router.engine.engine import Engine
from services.router.engine.sequence import EndReason, Sequence
from services.router.engine.step import Step
from services.router.lanes.choice import FixedLanes
from services.router.lanes.times import StepSeen
from services.router.session import Session
from services.runtime.span_writing import SpanRef
from services.runtime.tracing import Recorder, recording_with
from tests.router.scripted_engine import VOCAB, Heard, ScriptedTrunk, engine, order
from tests.router.test_session import request, spoken

MOST_32, MOST_64 = (1 << 32) - 1, (1 << 64) - 1
INTERNAL, INVALID = 13, 3


class Raising:
    """Called as whatever a test puts it in the place of, it raises."""

    def __call__(self, *_: object, **__: object) -> None:
        raise KeyError("secret")

    append = __call__


@pytest.mark.parametrize("lanes", [1, 2])
async def test_of_a_step_that_fails_only_the_sequence_that_fails_alone_ends(lanes: int) -> None:
    def act(step: Step) -> torch.Tensor:
        if any(
            len(work.sequence.order.prompt) == 2 and work.sequence.generated for work in step.batch
        ):
            raise IndexError("poison")
        logits = torch.zeros(len(step.drawing), VOCAB)
        for row, sequence in enumerate(step.drawing):
            logits[row, sequence.num_tokens % VOCAB] = (
                1.0  # the position, so that one lost or doubled would show
            )
        return logits

    async with engine(ScriptedTrunk(act), lanes=FixedLanes(lanes)) as running:
        heard = {prompt: Heard() for prompt in (1, 2, 3, 4)}
        for prompt, listener in heard.items():
            running.submit(order(prompt=prompt, new=6), listener)
        reasons = {prompt: await listener.reason() for prompt, listener in heard.items()}
    assert reasons.pop(2) is EndReason.ERROR
    assert set(reasons.values()) == {EndReason.LENGTH}
    for prompt in reasons:
        assert heard[prompt].tokens == [position % VOCAB for position in range(prompt, prompt + 6)]
    failed = heard[2].sequence
    assert failed is not None and failed.ending is not None
    assert "log says why" in str(failed.ending.error)


async def test_a_listener_that_raises_ends_its_order_alone() -> None:
    ended = asyncio.Event()

    def listen(sequence: Sequence, token: int | None, _: Step | None) -> None:
        if token is None:
            assert sequence.ending is not None and sequence.ending.reason is EndReason.ERROR
            ended.set()
        raise KeyError("secret")

    async with engine(ScriptedTrunk()) as running:
        before, after = Heard(), Heard()
        for listener in (before, listen, after):
            running.submit(order(), listener)
        assert [await heard.reason() for heard in (before, after)] == [EndReason.LENGTH] * 2
        assert ended.is_set()


async def test_experts_that_cannot_be_told_of_an_end_end_nothing_else() -> None:
    trunk, cancelled, late, other = ScriptedTrunk(), Heard(), Heard(), Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk, Raising()) as running:  # type: ignore[arg-type]
        sequence = running.submit(order(), cancelled)
        running.submit(order(), late, seconds=0.01)
        running.submit(order(), other)
        await trunk.entered.wait()
        running.cancel(sequence)
        assert await cancelled.reason() == EndReason.CANCELLED
        assert await late.reason() == EndReason.DEADLINE
        trunk.gate.set()
        assert await other.reason() == EndReason.LENGTH


async def test_what_observes_steps_ends_none() -> None:
    class Lanes(FixedLanes):
        def observe(self, seen: StepSeen) -> None:
            raise ZeroDivisionError

    parent = SpanRef.root()
    with recording_with(Recorder(Raising(), ALWAYS_ON)):
        async with engine(ScriptedTrunk(), lanes=Lanes(1)) as running:
            heard = Heard()
            running.submit(order(trace_parent=parent), heard)
            assert await heard.reason() == EndReason.LENGTH
            assert heard.tokens == [1] * 4


async def finishes(
    running: Engine, *requests: router_pb2.SequenceRequest
) -> dict[int, router_pb2.SequenceFinish]:
    """How sequences of one stream end, by their number; one that is in order goes with them."""
    innocent = request(1000)
    submit = router_pb2.RunRequest(submit=router_pb2.Submit(sequences=[*requests, innocent]))
    found: dict[int, router_pb2.SequenceFinish] = {}
    session = Session(running, VOCAB).run(spoken(submit))
    async with asyncio.timeout(10):
        async for response in session:
            found |= {
                event.sequence: event.finish
                for event in response.events
                if event.HasField("finish")
            }
            if len(found) == len(requests) + 1:
                break
    await session.aclose()
    assert found.pop(1000).reason == common_pb2.FINISH_REASON_LENGTH
    return found


def odd_sampling(**fields: Any) -> dict[str, Any]:
    sampling = common_pb2.SamplingParameters(
        **{"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1} | fields
    )
    return {"sampling": sampling}


SERVED: dict[str, dict[str, Any]] = {
    "the largest seed": odd_sampling(seed=MOST_64),
    "the largest top_k": odd_sampling(top_k=MOST_32),
    "a temperature next to zero": odd_sampling(temperature=5e-324),
    "a top_p next to zero": odd_sampling(top_p=5e-324),
    "a min_p of one": odd_sampling(min_p=1.0),
    "all the time there is": {"remaining_nanos": MOST_64},
    "stop tokens that the vocabulary has not": {"stop_token_ids": [MOST_32] * 9},
    "a trace that is none": {
        "trace": common_pb2.TraceContext(traceparent="00-\n-\x1b[2J", tracestate="," * 9999)
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    "no prompt": {"prompt_token_ids": []},
    "a token that the vocabulary has not": {"prompt_token_ids": [MOST_32]},
    "more tokens than the context": {"max_new_tokens": MOST_32},
    "no sampling": {"sampling": common_pb2.SamplingParameters()},
    "a temperature that is no number": odd_sampling(temperature=math.nan),
    "an infinite top_p": odd_sampling(top_p=math.inf),
    "a negative min_p": odd_sampling(min_p=-math.inf),
    "a trace detail that there is not": {"trace_detail": -7},
}


async def test_odd_sequences_are_served_or_refused_one_by_one() -> None:
    cases = [*SERVED.values(), *REFUSED.values()]
    async with engine(ScriptedTrunk()) as running:
        found: dict[int, router_pb2.SequenceFinish] = {}
        for first in range(0, len(cases), 5):
            requests = [
                request(number, **fields)
                for number, fields in enumerate(cases[first : first + 5], first)
            ]
            found |= await finishes(running, *requests)
    reasons = [found[number].reason for number in range(len(cases))]
    assert reasons == [common_pb2.FINISH_REASON_LENGTH] * len(SERVED) + [
        common_pb2.FINISH_REASON_ERROR
    ] * len(REFUSED)
    assert {found[number].status_code for number in range(len(SERVED), len(cases))} == {INVALID}


async def test_a_sequence_that_cannot_be_taken_in_is_refused_alone() -> None:
    async with engine(ScriptedTrunk()) as running:
        submit = running.submit

        def poisoned(order: Any, *arguments: Any, **named: Any) -> Sequence:
            if order.max_new_tokens == 3:
                raise KeyError("secret")
            return submit(order, *arguments, **named)

        running.submit = poisoned  # type: ignore[method-assign]
        found = await finishes(running, request(1, max_new_tokens=3), request(2, max_new_tokens=2))
    assert (found[1].reason, found[1].status_code) == (common_pb2.FINISH_REASON_ERROR, INTERNAL)
    assert "secret" not in found[1].message
    assert found[2].reason == common_pb2.FINISH_REASON_LENGTH


async def test_a_token_that_cannot_be_reported_ends_its_sequence_alone() -> None:
    def act(step: Step) -> torch.Tensor:
        step.routed[0] = torch.zeros(
            0, 2
        )  # no row for anybody, which matters to whoever asked for it
        return torch.zeros(len(step.drawing), VOCAB)

    async with engine(ScriptedTrunk(act)) as running:
        found = await finishes(running, request(1, return_routed_experts=True), request(2))
    assert (found[1].reason, found[1].status_code) == (common_pb2.FINISH_REASON_ERROR, INTERNAL)
    assert found[2].reason == common_pb2.FINISH_REASON_LENGTH


async def test_an_end_that_cannot_be_reported_whole_is_reported_all_the_same() -> None:
    def act(step: Step) -> torch.Tensor:
        for work in step.batch:
            if work.sequence.order.max_new_tokens == 3:
                work.sequence.overflowed_pairs = -1
        return torch.zeros(len(step.drawing), VOCAB)

    async with engine(ScriptedTrunk(act)) as running:
        found = await finishes(running, request(1, max_new_tokens=3), request(2))
    assert (found[1].reason, found[1].status_code) == (common_pb2.FINISH_REASON_ERROR, INTERNAL)
    assert found[2].reason == common_pb2.FINISH_REASON_LENGTH


async def test_what_a_slow_gateway_has_not_read_comes_in_messages_of_a_size_that_can_be_sent() -> (
    None
):
    refused = [request(number, max_new_tokens=0) for number in range(10)]
    submit = router_pb2.RunRequest(submit=router_pb2.Submit(sequences=refused))
    async with engine(ScriptedTrunk()) as running:
        session = Session(running, VOCAB, max_events=4).run(spoken(submit))
        said: list[list[int]] = []
        async for response in session:
            said.append([event.sequence for event in response.events])
            if sum(map(len, said)) == 10:
                break
        await session.aclose()
    assert [numbers for numbers in said if numbers] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
