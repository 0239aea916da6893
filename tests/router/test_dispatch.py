"""Scatter and gather against streams that answer out of order, in part, wrongly or not at all."""

import asyncio
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.router.dispatch.combine import Combination, ExactCombine, PartialCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.frame_pairs import NOBODY
from services.router.dispatch.placement import Placement
from services.router.engine.scheduler import ScheduledTokens
from services.router.engine.step import Step
from services.router.load.recording import DROPPED_ID
from services.router.load.watch import RoutingWatch
from services.wire.errors import InvalidRequest, ServingError, Unavailable
from services.wire.outcomes import FrameError
from services.wire.received import ReceivedFrame
from tests.router.scripted_streams import (
    HIDDEN,
    Behaviour,
    RecordedSpans,
    ScriptedExperts,
    ScriptedStream,
    expired,
    not_hosted,
    overloaded,
    step_of,
)

pytestmark = pytest.mark.usefixtures("with_and_without_kernels")

LAYER = 3


def dispatcher(
    dtype: torch.dtype,
    owners: list[int],
    streams: list[ScriptedStream],
    max_pairs: int,
    combine: Combination | None = None,
    **options: Any,
) -> Dispatcher:
    """With each expert on one service, and no time for a second attempt; `options` are further
    arguments.
    """
    combine = combine or ExactCombine()
    made = Dispatcher(
        num_experts=len(owners),
        hidden_size=HIDDEN,
        wire_dtype=dtype,
        combine=combine,
        unserved_seconds=0.0,
        **options,
    )
    limit = max_pairs * 2 * HIDDEN * dtype.itemsize
    services = [
        ScriptedExperts(f"service-{index}", [stream]) for index, stream in enumerate(streams)
    ]
    ready = np.array(owners) == np.arange(len(streams))[:, None]
    made.place(Placement(services, {LAYER: ready}, [limit] * len(services)))
    return made


async def computed(
    made: Dispatcher,
    step: Step,
    streams: list[ScriptedStream],
    routing: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    seed: int = 0,
) -> torch.Tensor:
    """Run one layer; once its frames are out, answer those that are held in a random order."""
    task = asyncio.ensure_future(made.compute(step, LAYER, *routing, None))
    await asyncio.sleep(0)
    answers = [answer for stream in streams for answer in stream.waiting]
    random.Random(seed).shuffle(answers)
    for answer in answers:
        answer()
    return await task


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(1, 8),
    st.integers(1, 4),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.integers(1, 12),
    st.sampled_from([ExactCombine(), PartialCombine()]),
    st.integers(0, 2**32),
)
def test_the_combined_rows_are_those_of_one_process(
    lengths: list[int],
    num_experts: int,
    num_services: int,
    dtype: torch.dtype,
    max_pairs: int,
    combine: Combination,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens, top_k = sum(lengths), min(num_experts, 3)
    hidden = torch.randn(tokens, HIDDEN, generator=generator).to(dtype)
    index = torch.rand(tokens, num_experts, generator=generator).topk(top_k, dim=-1).indices
    weights = torch.rand(tokens, top_k, generator=generator)
    scale = torch.randn(num_experts, HIDDEN, generator=generator).to(dtype)
    streams = [ScriptedStream(scale, holds=True) for _ in range(num_services)]
    owners = [expert % num_services for expert in range(num_experts)]
    step = step_of(lengths)
    made = dispatcher(dtype, owners, streams, max_pairs, combine)
    output = asyncio.run(computed(made, step, streams, (hidden, index, weights), seed))
    each = hidden[:, None] * scale[index]
    expected = each * weights[..., None]
    if combine.sums_on_services:  # each service rounds its sum once, and the whole is rounded once
        precision = torch.finfo(dtype)  # below its smallest normal number precision is absolute
        allowed = 2 * precision.eps * (expected.abs().sum(1) + precision.smallest_normal)
        assert ((output.float() - expected.sum(1)).abs() <= allowed).all()
    else:
        assert torch.equal(output, expected.sum(1).to(dtype))
    assert all(work.sequence.ending is None for work in step.batch)


ROUTING = (torch.ones(4, HIDDEN), torch.tensor([[0, 1], [0, 2], [2, 3], [2, 3]]), torch.ones(4, 2))


async def test_the_watch_sees_which_pairs_of_a_layer_are_computed_and_whether_it_was_decode() -> (
    None
):
    watch = RoutingWatch([LAYER], num_experts=4, top_k=2, window_steps=8)
    streams = [ScriptedStream(torch.ones(4, HIDDEN))]
    # Three pairs of an expert at most, of which the third token's is one too many.
    made = dispatcher(torch.float32, [0] * 4, streams, 100, watch=watch, capacity_factor=1.0)
    recorder = watch.record(max_bytes=100)
    decode, prefill = step_of([1, 1, 1, 1]), step_of([1, 3])
    for work in [*decode.batch, prefill.batch[0]]:
        work.sequence.num_computed = 1
    index = torch.tensor([[0, 1], [0, 2], [0, 3], [2, 3]])
    for step in (decode, prefill):
        await made.compute(step, LAYER, torch.ones(4, HIDDEN), index, torch.ones(4, 2), None)
    recording = recorder.take("")
    assert recording.step(0)[0].tolist() == [[0, 1], [0, 2], [DROPPED_ID, 3], [2, 3]]
    assert recording.is_decode.tolist() == [True, False]
    assert watch.monitor.load().tokens.tolist() == [[2, 1, 2, 2]]


async def test_in_the_last_layer_only_rows_that_a_token_is_drawn_from_are_computed() -> None:
    """Of a chunk that does not end its prompt nothing is sent at all."""
    watch = RoutingWatch([LAYER], num_experts=4, top_k=2, window_steps=8)
    streams = [ScriptedStream(torch.ones(4, HIDDEN))]
    made = dispatcher(torch.float32, [0] * 4, streams, 100, watch=watch, last_layer=LAYER)
    recorder = watch.record(max_bytes=100)
    hidden, index, weights = ROUTING
    step, whole = step_of([1, 3]), step_of([4])
    chunk = Step(0, [ScheduledTokens(whole.batch[0].sequence, 3)])
    output = await made.compute(step, LAYER, hidden, index, weights, None)
    await made.compute(chunk, LAYER, hidden[:3], index[:3], weights[:3], None)
    assert torch.equal(output[[0, 3]], torch.full((2, HIDDEN), 2.0))
    recording = recorder.take("")
    first, second = (recording.step(number)[0].tolist() for number in range(2))
    assert first == [[0, 1], [DROPPED_ID] * 2, [DROPPED_ID] * 2, [2, 3]]
    assert second == [[DROPPED_ID] * 2] * 3
    assert not any(work.sequence.ending for work in (*step.batch, *chunk.batch))


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (
            lambda frame, rows: {"rows": None, "error": FrameError(3, "layer is wrong")},
            "refused a frame: layer is wrong",
        ),
        (lambda frame, rows: {"rows": rows[:-1]}, "rows where"),
        (
            lambda frame, rows: {"rows": rows[:, :3].contiguous()},
            "returned a broken reply: rows has",
        ),
        (
            lambda frame, rows: {"failures": [not_hosted(99)]},
            "named pairs that were not in the frame",
        ),
        (
            lambda frame, rows: {
                "rows": rows[1:],
                "failures": [not_hosted(0)],
            },
            "expert 0 of layer 3 was not computed by service-0: it is not hosted there any more",
        ),
        (
            lambda frame, rows: {
                "rows": rows[1:],
                "failures": [overloaded(0)],
            },
            "its queue is full",
        ),
        (
            lambda frame, rows: {
                "rows": rows[1:],
                "failures": [expired(0)],
            },
            "time passed in its queue",
        ),
    ],
)
async def test_a_bad_answer_ends_only_the_requests_it_concerns(
    behaviour: Behaviour, message: str
) -> None:
    streams = [
        ScriptedStream(torch.ones(4, HIDDEN), behaviour),
        ScriptedStream(torch.ones(4, HIDDEN)),
    ]
    step = step_of(
        [2, 2]
    )  # experts 0 and 1, on the bad service, are used by the first sequence alone
    output = await computed(
        dispatcher(torch.float32, [0, 0, 1, 1], streams, 100), step, streams, ROUTING
    )
    concerned, other = (work.sequence for work in step.batch)
    assert concerned.ending is not None
    assert message in str(concerned.ending.error)
    assert not isinstance(concerned.ending.error, InvalidRequest), "the client is not to blame"
    assert other.ending is None
    assert torch.equal(output[2:], torch.full((2, HIDDEN), 2.0))


async def test_a_frame_names_each_request_of_its_rows_once() -> None:
    named: list[tuple[int, ...]] = []

    def note(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        named.append(frame.requests)
        return {}

    for lengths, expected in (([2, 2], [(0,), (0, 1)]), ([1, 1, 1, 1], [(0, 1), (1, 2, 3)])):
        streams = [
            ScriptedStream(torch.ones(4, HIDDEN), note),
            ScriptedStream(torch.ones(4, HIDDEN), note),
        ]
        made = dispatcher(torch.float32, [0, 0, 1, 1], streams, 100)
        await computed(made, step_of(lengths), streams, ROUTING)
        assert sorted(named) == expected
        named.clear()


async def test_the_span_of_a_refused_frame_ends_once_as_failed() -> None:
    refused = lambda frame, rows: {"rows": None, "error": FrameError(3, "layer is wrong")}  # noqa: E731
    streams = [
        ScriptedStream(torch.ones(4, HIDDEN), refused),
        ScriptedStream(torch.ones(4, HIDDEN)),
    ]
    step = step_of([2, 2])
    step.spans = spans = RecordedSpans()
    await computed(dispatcher(torch.float32, [0, 0, 1, 1], streams, 100), step, streams, ROUTING)
    assert spans.frames == [(1, "service-0 refused a frame: layer is wrong"), (1, "")]


async def test_frames_are_given_up_when_own_work_meanwhile_fails() -> None:
    def fail() -> None:
        raise RuntimeError("no memory")

    streams = [ScriptedStream(torch.ones(4, HIDDEN), holds=True)]
    with pytest.raises(RuntimeError):
        await dispatcher(torch.float32, [0, 0, 0, 0], streams, 100).compute(
            step_of([4]), LAYER, *ROUTING, fail
        )
    assert streams[0].answers[0].cancelled()


async def test_an_expert_that_nobody_hosts_ends_only_the_requests_that_need_it() -> None:
    streams = [ScriptedStream(torch.ones(4, HIDDEN))]
    step = step_of([2, 2])
    await computed(
        dispatcher(torch.float32, [0, NOBODY, 0, 0], streams, 100), step, streams, ROUTING
    )
    needy, other = (work.sequence for work in step.batch)
    assert needy.ending is not None
    assert isinstance(needy.ending.error, Unavailable)
    assert str(needy.ending.error) == "no live service hosts expert 1 of layer 3"
    assert other.ending is None


async def test_a_broken_stream_ends_its_requests_with_layer_and_expert() -> None:
    def broken(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        raise Unavailable("the stream broke")

    streams = [ScriptedStream(torch.ones(4, HIDDEN), broken)]
    step = step_of([4])
    await computed(dispatcher(torch.float32, [0, 0, 0, 0], streams, 100), step, streams, ROUTING)
    ending = step.batch[0].sequence.ending
    assert ending is not None
    assert isinstance(ending.error, ServingError)
    assert str(ending.error) == "expert 0 of layer 3 could not be computed: the stream broke"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (
            lambda frame, rows: {"failures": [not_hosted(0)]},
            "expert 0 of layer 3 was not computed by service-0: it is not hosted there any more",
        ),
        (
            lambda frame, rows: {
                "rows": None,
                "failures": [overloaded(0, 1, 2)],
            },
            "expert 0 of layer 3 was not computed by service-0: its queue is full",
        ),
        (lambda frame, rows: {"rows": rows[:-1]}, "service-0 returned 1 rows where 2 were due"),
        (
            lambda frame, rows: {"rows": torch.ones(3, HIDDEN)},
            "service-0 returned 3 rows where 2 were due",
        ),
        (lambda frame, rows: {"rows": None}, "service-0 returned 0 rows where 2 were due"),
    ],
)
async def test_of_sums_too_a_bad_answer_ends_only_the_requests_it_concerns(
    behaviour: Behaviour, message: str
) -> None:
    streams = [
        ScriptedStream(torch.ones(4, HIDDEN), behaviour),
        ScriptedStream(torch.ones(4, HIDDEN)),
    ]
    step = step_of([2, 2])
    made = dispatcher(torch.float32, [0, 0, 1, 1], streams, 100, PartialCombine())
    output = await computed(made, step, streams, ROUTING)
    concerned, other = (work.sequence for work in step.batch)
    assert concerned.ending is not None
    assert message in str(concerned.ending.error)
    assert other.ending is None
    assert torch.equal(output[2:], torch.full((2, HIDDEN), 2.0))


async def test_weights_that_are_not_finite_end_their_requests_and_are_not_sent() -> None:
    sent: list[list[float]] = []

    def note(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        sent.append(frame.pair_weights.tolist())
        return {}

    hidden, index, weights = ROUTING
    weights = weights.clone()
    weights[1, 1] = float("nan")
    streams = [
        ScriptedStream(torch.ones(4, HIDDEN), note),
        ScriptedStream(torch.ones(4, HIDDEN), note),
    ]
    step = step_of([2, 2])
    made = dispatcher(torch.float32, [0, 0, 1, 1], streams, 100, PartialCombine())
    output = await computed(made, step, streams, (hidden, index, weights))
    broken, other = (work.sequence for work in step.batch)
    assert broken.ending is not None
    assert str(broken.ending.error) == "the gate of layer 3 computed weights that are not finite"
    assert other.ending is None
    assert sorted(sent) == [[0.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert torch.equal(output[2:], torch.full((2, HIDDEN), 2.0))


async def test_rows_travel_in_the_wire_s_type_and_are_combined_in_the_model_s() -> None:
    seen: set[torch.dtype] = set()

    def note(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        seen.add(frame.dtype)
        return {}

    hidden = torch.randn(4, HIDDEN)
    for combine in (ExactCombine(), PartialCombine()):
        streams = [ScriptedStream(torch.ones(4, HIDDEN).bfloat16(), note) for _ in range(2)]
        made = dispatcher(torch.bfloat16, [0, 0, 1, 1], streams, 100, combine)
        output = await computed(made, step_of([4]), streams, (hidden, *ROUTING[1:]))
        assert output.dtype is torch.float32
        assert seen == {torch.bfloat16}
        assert torch.equal(
            output, 2 * hidden.bfloat16().float()
        )  # every product and sum here is exact in bfloat16
