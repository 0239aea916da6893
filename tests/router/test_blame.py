"""Who is blamed for a layer's wait, in receipt, spans and words alike."""

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.router.dispatch.combine import ExactCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.placement import Placement
from services.router.engine.sequence import Order, SequenceTrace, TraceDetail
from services.router.engine.sequence import Sequence as Generated
from services.router.engine.spans import spans_of_step
from services.router.engine.step import Step
from services.router.engine.tracing import TracePolicy
from services.router.peers.frame_lost import FrameLost
from services.router.peers.stream import TimedReply
from services.router.times.blame import Blame, Failing, InVain, blame
from services.router.times.receipt import ReplyTimes, SequenceReceipt, StepClock
from services.runtime.span_writing import SpanRef
from services.traces.model import Trace
from services.traces.verdict import waited_for
from services.tracing.jaeger import trace_document
from services.tracing.spans import Source
from services.tracing.store import SpanStore
from services.wire.frames import decode_request, decode_response
from services.wire.outcomes import FrameError
from services.wire.received import ReceivedFrame
from services.wire.sampling import Sampling
from tests.recorded_spans import attributes_of, recorded_spans
from tests.router.behaviours import expect_in_order
from tests.router.scripted_streams import HIDDEN, ScriptedExperts, ScriptedStream, step_of

LAYER, NUM_EXPERTS, ROWS = 3, 4, 4
SCALE = torch.arange(1.0, NUM_EXPERTS * HIDDEN + 1).view(NUM_EXPERTS, HIDDEN)
INDEX = torch.tensor([[0, 1], [0, 2], [2, 3], [2, 3]])
ROUTING = (torch.ones(ROWS, HIDDEN), INDEX, torch.full((ROWS, 2), 0.5))
# The third service has a replica of every expert, and is expected to be the slowest.
READY = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], dtype=bool)
NUM_CASES, MOST_NANOS = 200, 100_000_000_000


def reply(service: str, sent: int, arrived: int) -> ReplyTimes:
    return ReplyTimes(service, sent, arrived, 0, 0)


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        ([], None),
        ([reply("a", 0, 9), reply("b", 0, 7)], Blame("a", 9)),
        # It hung, and another one did its work: who came last is not who cost the time.
        (
            [InVain("a", 0, 200), reply("b", 0, 18), reply("b", 200, 218)],
            Blame("a", 200, Failing.SILENT, "b"),
        ),
        # It failed at once, and its replica took long.
        ([InVain("a", 0, 2), reply("b", 2, 40)], Blame("b", 38)),
        # It was refused again and again; the pauses are its, too.
        (
            [
                *(reply("a", 0, 1), InVain("a", 1, 20, Failing.REFUSED)),
                *(reply("a", 20, 21), InVain("a", 21, 60, Failing.REFUSED), reply("b", 60, 70)),
            ],
            Blame("a", 60, Failing.REFUSED, "b"),
        ),
        # A quicker copy ended the wait for it.
        ([reply("b", 0, 5), InVain("a", 0, 30, instead="c")], Blame("a", 30, Failing.SILENT, "c")),
        # Nobody hosted the expert.
        ([InVain("", 0, 50, Failing.REFUSED)], Blame("", 50, Failing.REFUSED, "")),
        # A moment in which both were waited for is charged once.
        ([reply("a", 0, 10), reply("b", 4, 15)], Blame("b", 11)),
    ],
)
def test_the_service_that_cost_the_layer_most_time_is_the_straggler(
    waits: Sequence[ReplyTimes | InVain], expected: Blame | None
) -> None:
    assert blame(waits) == expected


def test_every_moment_of_a_wait_without_a_gap_is_charged_once() -> None:
    random = Random(0)
    for _ in range(100):
        ends = [0, *sorted(random.sample(range(1, 1_000), 4))]
        waits = [reply("a", began, ended) for began, ended in pairwise(ends)]
        waits += [reply("a", began, random.randint(began, ends[-1])) for began in ends]
        assert blame(waits) == Blame("a", ends[-1])


class Case(NamedTuple):
    """What happens to one layer: how long each service takes for its frames, one after the other,
    and whether it then computes them, is given up or refuses; and who is to blame, and how.
    """

    happens: dict[int, list[tuple[str, int]]]
    culprit: int
    words: str


def cases() -> list[Case]:
    """Delays, hangs, late refusals, and replicas that are slow where another one failed at once."""
    made = []
    for number in range(NUM_CASES // 4):
        one = number % 2
        quick = Random(number).randrange(MOST_NANOS // 2)
        most = MOST_NANOS
        others: dict[int, list[tuple[str, int]]] = {1 - one: [("well", quick)]}
        made += [
            Case(others | {one: [("well", most)]}, one, "waited for service"),
            Case(others | {one: [("hangs", most)]}, one, "did not answer"),
            Case(others | {one: [("refuses", most)]}, one, "waited for service"),
            Case(others | {one: [("hangs", quick)], 2: [("well", most)]}, 2, "waited for service"),
        ]
    return made


class TimedStream(ScriptedStream):
    """Answers at once, and says that it took so many nanoseconds: far more than the machine has
    ever to do with.
    """

    def __init__(self, address: str, turns: Sequence[tuple[str, int]]) -> None:
        super().__init__(SCALE)
        self._address, self._turns = address, iter(turns)

    def send(
        self, encode: object, num_pairs: int, num_experts: int
    ) -> "asyncio.Future[TimedReply]":
        assert callable(encode)
        loop, sent = asyncio.get_running_loop(), StepClock.now()
        answered: asyncio.Future[TimedReply] = loop.create_future()
        frame = decode_request(encode(0, 10**9))
        assert isinstance(frame, ReceivedFrame)
        kind, nanos = next(self._turns, ("well", 0))
        loop.call_soon(self._end, answered, frame, kind, sent, sent + nanos)
        return answered

    def _end(
        self, answered: "asyncio.Future[TimedReply]", frame: ReceivedFrame, kind: str, *times: int
    ) -> None:
        sent, ended = times
        if kind == "hangs":
            lost = FrameLost("no answer in time", "deadline")
            lost.at = ended
            answered.set_exception(lost)
            return
        if kind == "refuses":
            self.behaviour = lambda frame, rows: {"rows": None, "error": FrameError(14, "no")}
        message = self.answer_to(frame)
        assert message is not None
        received = decode_response(message).reply
        assert received is not None
        reply_times = ReplyTimes(self._address, sent, ended, 0, 0)
        answered.set_result(TimedReply(received, reply_times))


async def computed(case: Case) -> tuple[Step, bytes]:
    """The step of one layer to which that happened, and its trace's id."""
    services = [
        ScriptedExperts(name, [TimedStream(name, case.happens.get(number, ()))])
        for number, name in enumerate(f"service-{number}" for number in range(3))
    ]
    expect_in_order(service.pace for service in services)
    made = Dispatcher(
        num_experts=NUM_EXPERTS,
        hidden_size=HIDDEN,
        wire_dtype=torch.float32,
        combine=ExactCombine(),
    )
    made.place(Placement(services, {LAYER: READY}))
    step, root = step_of([2, 2]), SpanRef.root()
    trace = SequenceTrace(root.child(), root.span_id, TraceDetail.LAYER, is_chosen=False)
    sequence = Generated(1, Order((0,), Sampling(), 1), SequenceReceipt(), trace)
    policy = TracePolicy.of(TraceDetail.STEP, layers_share=0.0)
    step.spans = spans_of_step(policy, [sequence], 0, step.clock.started)
    await made.compute(step, LAYER, *ROUTING, None)
    step.spans.end(step.clock.parts, 4)
    return step, root.trace_id


def as_shown(spans: Sequence[Span], trace_id: bytes) -> Trace:
    store = SpanStore(max_traces=1, max_bytes=1 << 20)
    for span in spans:
        if span.trace_id == trace_id:
            store.add(Source("router", ()), ("", ""), span)
    stored = store.get(trace_id)
    assert stored is not None
    return Trace.parse(trace_document(stored))


async def test_of_200_delays_hangs_and_retries_the_culprit_is_named_in_all() -> None:
    made = cases()
    assert len(made) == NUM_CASES
    with recorded_spans() as recorded:
        ended = [await computed(case) for case in made]
    spans = recorded.spans
    for case, (step, trace_id) in zip(made, ended, strict=True):
        culprit = f"service-{case.culprit}"
        receipt = SequenceReceipt()
        receipt.leave_step(step.clock, prefill=False)
        assert receipt.slowest_service == (culprit, 1), case
        shown = as_shown(spans, trace_id)
        (layer,) = shown.named("router.layer")
        assert layer.text("moesaic.straggler") == culprit, case
        words = waited_for(shown, layer, {})
        assert culprit in words, case
        assert re.search(case.words, words), (case, words)


async def test_a_traced_frame_says_which_experts_it_is_for() -> None:
    with recorded_spans() as recorded:
        await computed(cases()[1])
    calls = [attributes_of(span) for span in recorded.named("router.expert")]
    told = {(call["server.address"], call["moesaic.experts"]) for call in calls}
    assert told == {("service-0", "0,1"), ("service-1", "2,3"), ("service-2", "0,1")}
