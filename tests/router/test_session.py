"""A gateway's stream: what it is told, and what is left when it ends."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from moesaic.v1 import common_pb2, router_pb2
from services.router.engine.step import Step
from services.router.orders import order_of
from services.router.session import Session
from services.wire.errors import InvalidRequest
from tests.router.scripted_engine import VOCAB, ScriptedTrunk, engine

SAMPLING = common_pb2.SamplingParameters(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)


def request(sequence: int = 1, **fields: Any) -> router_pb2.SequenceRequest:
    fields = {"prompt_token_ids": [1, 2], "sampling": SAMPLING, "max_new_tokens": 4} | fields
    return router_pb2.SequenceRequest(sequence=sequence, **fields)  # type: ignore[arg-type]


async def spoken(*requests: router_pb2.RunRequest) -> AsyncIterator[router_pb2.RunRequest]:
    for said in requests:
        yield said
    await asyncio.Event().wait()


async def test_a_stream_that_is_closed_while_it_writes_ends_quietly_and_frees_its_sequences() -> (
    None
):
    trunk = ScriptedTrunk()
    trunk.gate = asyncio.Event()
    async with engine(trunk) as running:
        submit = router_pb2.RunRequest(submit=router_pb2.Submit(sequences=[request()]))
        session = Session(running, VOCAB).run(spoken(submit))
        await anext(session)
        while (await anext(session)).credit.sequences == 8:
            pass
        await session.aclose()
        assert running.room_watchers == set()
        trunk.gate.set()


async def test_a_stream_whose_gateway_has_said_all_ends_with_its_last_sequence() -> None:
    async def last_words() -> AsyncIterator[router_pb2.RunRequest]:
        yield router_pb2.RunRequest(submit=router_pb2.Submit(sequences=[request()]))

    async with engine(ScriptedTrunk()) as running:
        responses = [response async for response in Session(running, VOCAB).run(last_words())]
        assert responses[-1].events[-1].HasField("finish")


async def test_credit_is_said_where_it_changed_and_nowhere_else() -> None:
    submit = router_pb2.RunRequest(submit=router_pb2.Submit(sequences=[request()]))
    async with engine(ScriptedTrunk()) as running:
        responses = []
        async for response in Session(running, VOCAB).run(spoken(submit)):
            responses.append(response)
            if any(event.HasField("finish") for event in response.events):
                break
    credits = [response.credit for response in responses if response.HasField("credit")]
    assert credits[-1].acknowledged_submits == 1
    assert all(one != other for one, other in pairwise(credits))
    assert len(credits) < len(responses)


async def test_what_a_step_made_can_be_written_before_the_next_one_begins() -> None:
    submit = router_pb2.RunRequest(submit=router_pb2.Submit(sequences=[request()]))
    happened: list[str] = []

    def step(step: Step) -> torch.Tensor:
        happened.append("step")
        return torch.zeros(len(step.drawing), VOCAB)

    async with engine(ScriptedTrunk(step)) as running:
        async for response in Session(running, VOCAB).run(spoken(submit)):
            if any(event.HasField("token") for event in response.events):
                # A transport writes what was said in a turn of the loop when that turn is over.
                asyncio.get_running_loop().call_soon(happened.append, "written")
            if any(event.HasField("finish") for event in response.events):
                break
        await asyncio.sleep(0)
    assert happened == ["step", "written"] * 4


async def test_a_gateway_that_reads_nothing_is_not_read_from() -> None:
    said: list[int] = []

    async def refused() -> AsyncIterator[router_pb2.RunRequest]:
        for sequence in range(10):
            said.append(sequence)
            yield router_pb2.RunRequest(
                submit=router_pb2.Submit(sequences=[request(sequence, max_new_tokens=0)])
            )

    async with engine(ScriptedTrunk()) as running:
        session = Session(running, VOCAB, max_unread_events=3).run(refused())
        await anext(session)
        for _ in range(100):
            await asyncio.sleep(0)
        assert said == [0, 1, 2, 3]
        events = [event async for response in session for event in response.events]
        assert [event.sequence for event in events] == list(range(10))


def test_a_trace_detail_that_does_not_exist_is_the_callers_fault() -> None:
    with pytest.raises(InvalidRequest, match="trace_detail is 9; it must be from 0 to 3"):
        order_of(request(trace_detail=9), VOCAB)


async def test_streams_that_have_nothing_in_flight_take_no_share_of_the_credit() -> None:
    trunk = ScriptedTrunk()
    trunk.gate = asyncio.Event()
    submit = router_pb2.RunRequest(submit=router_pb2.Submit(sequences=[request()]))
    async with engine(trunk) as running:
        idle = [Session(running, VOCAB).run(spoken()) for _ in range(7)]
        for stream in idle:
            assert (await anext(stream)).credit.sequences == 8
        busy = Session(running, VOCAB).run(spoken(submit))
        while (await anext(busy)).credit.sequences != 7:  # all that is left
            pass
        assert (await anext(idle[0])).credit.sequences == 3  # half of that
        trunk.gate.set()
        for stream in (busy, *idle):
            await stream.aclose()
        assert running.room_sharers == set()


async def test_likelihoods_of_two_prompts_never_share_a_message() -> None:
    def act(step: Step) -> torch.Tensor:
        step.scored = torch.zeros(len(step.scored_rows), VOCAB)
        return torch.zeros(len(step.drawing), VOCAB)

    asked = [request(name, top_logprobs=1, prompt_logprobs=True) for name in (1, 2, 3)]
    submit = router_pb2.RunRequest(submit=router_pb2.Submit(sequences=asked))
    num_ended, scored = 0, list[int]()
    async with engine(ScriptedTrunk(act)) as running:
        session = Session(running, VOCAB).run(spoken(submit))
        while num_ended < len(asked):
            response = await anext(session)
            names = [each.sequence for each in response.events if each.token.prompt_logprobs]
            assert len(names) <= 1
            scored += names
            num_ended += sum(each.HasField("finish") for each in response.events)
        await session.aclose()
    assert sorted(scored) == [1, 2, 3]
