"""Whatever happens during an exchange, the output has the bits that it has frame by frame."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services import kernels
from services.model.checkpoint import Checkpoint
from services.router.dispatch import exchanges
from services.router.dispatch.auditor import Auditor
from services.router.dispatch.combine import ExactCombine, Sums
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.exchange import MOST_WAIT_NANOS, Exchange
from services.router.dispatch.own_experts import OwnExperts
from services.router.dispatch.placement import Placement, Service
from services.router.engine.step import Step
from services.router.peers.native_transport import AVAILABLE, _streams
from services.router.peers.peer import ExpertPeer
from services.wire.outcomes import Timings
from tests.checkpoints import save_tiny
from tests.expert.expert_client import expert_service
from tests.router.behaviours import expect_in_order
from tests.router.connected_peer import connected_to
from tests.router.paces import fitted_pace
from tests.router.scripted_native import NativeService, ScriptedService, native_services
from tests.router.scripted_streams import HIDDEN, Behaviour, RecordedSpans, step_of, well
from tests.router.test_resending import (
    DISTURBANCES,
    LAYER,
    NUM_EXPERTS,
    ROUTING,
    SCALE,
    assert_well,
    unanswered,
)

pytestmark = pytest.mark.skipif(
    not (AVAILABLE and kernels.AVAILABLE), reason="native streams or kernels were not built"
)


class Outcomes:
    """How many exchanges were begun, and how many of them combined what they received."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.combined = 0
        send, combined = Exchange.send, Exchange.combined

        def counted_send(exchange: Exchange, *arguments: Any) -> None:
            self.begun += 1
            send(exchange, *arguments)

        def counted_combined(exchange: Exchange, *arguments: Any) -> Sums:
            self.combined += 1
            return combined(exchange, *arguments)

        monkeypatch.setattr(Exchange, "send", counted_send)
        monkeypatch.setattr(Exchange, "combined", counted_combined)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Outcomes:
    return Outcomes(monkeypatch)


# An exchange waits for replies as long as it takes, while the loop has its turns.
PATIENT: dict[str, Any] = {"exchange_wait_nanos": 60 * 10**9}


def dispatcher_of(services: Sequence[Service], dtype: torch.dtype, **options: Any) -> Dispatcher:
    return Dispatcher(
        **{
            "num_experts": NUM_EXPERTS,
            "hidden_size": HIDDEN,
            "wire_dtype": dtype,
            "combine": ExactCombine(),
            **options,
        }
    )


def is_ready(peer: ExpertPeer) -> bool:
    return peer.is_usable and bool(peer.ready)


@asynccontextmanager
async def real_services(
    model: Path, dtype: str, number: int, *, batch_invariant: bool = False
) -> AsyncIterator[list[Service]]:
    checkpoint = Checkpoint.open(model)
    async with AsyncExitStack() as stack:
        peers: list[Service] = []
        for _ in range(number):
            service = await stack.enter_async_context(
                expert_service(model, dtype=dtype, preload="all", batch_invariant=batch_invariant)
            )
            made = await stack.enter_async_context(
                connected_to(
                    checkpoint,
                    f"127.0.0.1:{service.port}",
                    30.0,
                    batch_invariant=batch_invariant,
                )
            )
            await made.until(partial(is_ready, made.peer))
            peers.append(made.peer)
        yield peers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_the_output_has_the_same_bits_as_frame_by_frame(
    tmp_path: Path, dtype: str, number: int, outcomes: Outcomes
) -> None:
    torch_dtype = getattr(torch, dtype)
    model = save_tiny("olmoe", tmp_path, dtype=torch_dtype)
    generator = torch.Generator().manual_seed(0)
    apart = np.arange(8) % number == np.arange(number)[:, None]
    replicated = np.ones((number, 8), dtype=bool)
    async with real_services(model, dtype, number) as services:
        for tokens, top_k, ready, guard in product(
            (1, 3, 16, 64), (1, 2, 4), (apart, replicated), (None, 1.0)
        ):
            made = Dispatcher(
                num_experts=8,
                hidden_size=32,
                wire_dtype=torch_dtype,
                combine=ExactCombine(),
                capacity_factor=guard,
                **PATIENT,
            )
            made.place(Placement(services, {1: ready}))
            hidden = torch.randn(tokens, 32, generator=generator).to(torch_dtype)
            index = torch.rand(tokens, 8, generator=generator).topk(top_k).indices
            weights = torch.rand(tokens, top_k, generator=generator).to(torch_dtype)
            step, outputs = step_of([1] * tokens), []
            for step.is_alone in (True, False):
                outputs.append(await made.compute(step, 1, hidden, index, weights, None))
            assert torch.equal(*outputs)
            assert all(work.sequence.ending is None for work in step.batch)
    assert outcomes.combined == outcomes.begun == 48


async def test_a_layer_that_is_audited_has_the_same_bits(
    tmp_path: Path, outcomes: Outcomes
) -> None:
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path))
    judge = OwnExperts(checkpoint, torch.float32)
    index, weights = torch.tensor([[0, 1], [2, 3], [4, 7]]), torch.rand(3, 2)
    async with real_services(tmp_path, "float32", 2) as services:
        options: dict[str, Any] = {"num_experts": 8, "hidden_size": 32}
        made = dispatcher_of(services, torch.float32, **options, **PATIENT)
        made.place(Placement(services, {1: np.ones((2, 8), dtype=bool)}))
        auditor = Auditor(1.0, judge, lambda: made.placement, lambda one, other: False)
        outputs, step = [], step_of([1] * 3)
        for _ in range(3):
            step.is_alone = True
            outputs.append(await made.compute(step, 1, torch.ones(3, 32), index, weights, None))
            made.audit_by(auditor)
        auditing = asyncio.create_task(auditor.run())
        async with asyncio.timeout(10):
            while auditor.outcomes.total() < 2:  # noqa: ASYNC110 -- it is told by a count alone
                await asyncio.sleep(0.001)
        auditing.cancel()
        await asyncio.wait([auditing])
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert (outcomes.begun, outcomes.combined) == (3, 1)
    assert set(auditor.outcomes) == {"agreed"}


@pytest.mark.parametrize("number", [1, 2])
async def test_rows_of_long_messages_have_the_same_bits_as_frame_by_frame(
    tmp_path: Path, number: int, outcomes: Outcomes
) -> None:
    model = save_tiny("olmoe", tmp_path, dtype=torch.bfloat16)
    tokens = 4000  # 250 KiB of rows
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 32, generator=generator).to(torch.bfloat16)
    weights = torch.rand(tokens, 1, generator=generator).to(torch.bfloat16)
    index = (torch.arange(tokens) % 8)[:, None]
    # Where the thread of the native streams computes all, however many rows there are.
    async with real_services(model, "bfloat16", number, batch_invariant=True) as services:
        made = Dispatcher(
            num_experts=8,
            hidden_size=32,
            wire_dtype=torch.bfloat16,
            combine=ExactCombine(),
            **PATIENT,
        )
        owned = np.arange(8) % number == np.arange(number)[:, None]
        made.place(Placement(services, {1: owned}))
        step, outputs = step_of([1] * tokens), []
        for step.is_alone in (True, False, True):
            outputs.append(await made.compute(step, 1, hidden, index, weights, None))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    assert outcomes.combined == 2


class Cluster:
    """Scripted services behind native streams, of which the first is expected to be the fastest,
    and a dispatcher over them.
    """

    def __init__(self, services: Sequence[NativeService], **options: Any) -> None:
        self.services = services
        expect_in_order(service.pace for service in services)
        self.dispatcher = dispatcher_of(services, torch.float32, **options)
        self.place(np.ones((len(services), NUM_EXPERTS), dtype=bool))

    def place(self, ready: "np.ndarray[Any, Any]", **options: Any) -> None:
        self.dispatcher.place(Placement(self.services, {LAYER: ready}, **options))

    def compute(self, step: Step, meanwhile: Callable[[], None] | None = None) -> Any:
        return self.dispatcher.compute(step, LAYER, *ROUTING, meanwhile)


APART = np.array([[True, True, False, False], [False, False, True, True]])


@asynccontextmanager
async def cluster_of(
    *scripted: ScriptedService, floor_seconds: float = 30.0, **options: Any
) -> AsyncIterator[Cluster]:
    async with native_services(*scripted, floor_seconds=floor_seconds) as services:
        yield Cluster(services, **options)


def scripted(behaviour: Behaviour = well) -> ScriptedService:
    return ScriptedService(SCALE, behaviour)


async def test_the_loop_reads_what_comes_while_an_exchange_waits(outcomes: Outcomes) -> None:
    service, (ours, theirs) = scripted(), socket.socketpair()
    with ours, theirs:
        async with cluster_of(service, **PATIENT) as cluster:

            def read() -> None:
                ours.recv(1)
                service.may_answer.set()

            loop = asyncio.get_running_loop()
            loop.add_reader(ours, read)
            for _ in range(3):
                service.may_answer.clear()
                threading.Timer(0.01, theirs.send, [b"x"]).start()
                step = step_of([2, 2])
                assert_well(step, await cluster.compute(step))
            loop.remove_reader(ours)
    assert outcomes.combined == outcomes.begun == 3


async def test_the_loop_has_turns_though_replies_are_always_there_at_once(
    outcomes: Outcomes,
) -> None:
    def compute_for_long() -> None:
        end = time.perf_counter_ns() + 5 * MOST_WAIT_NANOS
        while time.perf_counter_ns() < end:
            pass

    async with cluster_of(scripted(), **PATIENT) as cluster:
        for _ in range(3):
            had_its_turn: list[bool] = []
            asyncio.get_running_loop().call_soon(had_its_turn.append, True)
            step = step_of([2, 2])
            assert_well(step, await cluster.compute(step, compute_for_long))
            assert had_its_turn
    assert outcomes.combined == outcomes.begun == 3


@pytest.mark.parametrize(("behaviour", "reason"), DISTURBANCES)
async def test_what_a_service_fails_to_compute_its_replica_computes(
    behaviour: Behaviour, reason: str, outcomes: Outcomes
) -> None:
    async with cluster_of(scripted(behaviour), scripted(), **PATIENT) as cluster:
        step = step_of([2, 2])
        assert_well(step, await cluster.compute(step))
        reason = "broken" if reason in {"deadline", "lost"} else reason  # the stream breaks in all
        assert step.clock.retries == {("service-0", reason): 1}
    assert (outcomes.begun, outcomes.combined) == (1, reason == "not_finite")


async def test_a_service_that_leaves_its_frame_unanswered_is_suspect_in_time(
    outcomes: Outcomes,
) -> None:
    async with cluster_of(scripted(unanswered), scripted(), floor_seconds=0.2) as cluster:
        step = step_of([2, 2])
        assert_well(step, await cluster.compute(step))
        assert step.clock.retries == {("service-0", "deadline"): 1}
        assert step.clock.stragglers == {"service-0": 1}  # though the other one came last
        assert cluster.services[0].behaviour.suspicion.is_suspect
    assert (outcomes.begun, outcomes.combined) == (1, 0)


async def test_timers_fire_while_a_reply_is_late_and_the_others_are_kept(
    outcomes: Outcomes,
) -> None:
    late = scripted()
    async with cluster_of(scripted(), late) as cluster:
        cluster.place(APART)
        late.may_answer.clear()
        asyncio.get_running_loop().call_later(0.01, late.may_answer.set)
        step = step_of([2, 2])
        assert_well(step, await cluster.compute(step))
        assert step.clock.stragglers == {"service-1": 1}
    assert (outcomes.begun, outcomes.combined) == (1, 0)


@pytest.mark.parametrize("fails_own_work", [False, True])
async def test_a_step_that_ends_early_leaves_streams_that_can_be_used(
    fails_own_work: bool, outcomes: Outcomes
) -> None:
    def fail() -> None:
        raise RuntimeError("no memory")

    slow, quick = scripted(), scripted()
    async with cluster_of(slow, quick) as cluster:
        cluster.place(APART)
        slow.may_answer.clear()
        given_up = asyncio.ensure_future(
            cluster.compute(step_of([2, 2]), fail if fails_own_work else None)
        )
        await slow.until_frame()
        given_up.cancel()
        with pytest.raises(RuntimeError if fails_own_work else asyncio.CancelledError):
            await given_up
        slow.may_answer.set()
        for _ in range(2):
            step = step_of([2, 2])
            assert_well(step, await cluster.compute(step))
    assert outcomes.begun == 3


async def test_a_layer_whose_streams_are_in_an_exchange_goes_frame_by_frame(
    outcomes: Outcomes,
) -> None:
    async with cluster_of(scripted(), scripted(), **PATIENT) as cluster:
        cluster.place(APART)
        steps = [step_of([2, 2]) for _ in range(3)]
        outputs = await asyncio.gather(*map(cluster.compute, steps))
        for step, output in zip(steps, outputs, strict=True):
            assert_well(step, output)
    assert outcomes.combined == outcomes.begun == 1


async def test_what_a_reply_grants_is_there_for_the_next_exchange(outcomes: Outcomes) -> None:
    service = scripted()
    service.behaviour = lambda frame, rows: {"granted_pairs": 8 * (2 + frame.frame_id)}
    service.credit = 8
    async with cluster_of(service, **PATIENT) as cluster:
        for _ in range(3):
            step = step_of([2, 2])
            assert_well(step, await cluster.compute(step))
    assert outcomes.combined == outcomes.begun == 3


async def test_without_credit_a_frame_waits_for_it_as_usual(outcomes: Outcomes) -> None:
    service = scripted()
    service.credit = 7
    async with cluster_of(service) as cluster:
        cluster.dispatcher.place(Placement(cluster.services, {LAYER: APART[:1] | APART[1:]}, [7]))
        computing = asyncio.ensure_future(cluster.compute(step_of([2, 2])))
        await service.until_frame()
        computing.cancel()
        await asyncio.wait([computing])
    assert outcomes.begun == 0


async def test_receipts_and_spans_have_all_of_an_exchange(outcomes: Outcomes) -> None:
    times = {"timings": Timings(1000, 2000, 3000, 4000)}
    answering: Behaviour = lambda frame, rows: times  # noqa: E731
    async with cluster_of(scripted(answering), scripted(answering), **PATIENT) as cluster:
        cluster.place(APART)
        step = step_of([2, 2])
        step.spans = spans = RecordedSpans()
        assert_well(step, await cluster.compute(step, lambda: None))
        clock = step.clock
        assert clock.parts.total() == clock.ended - clock.started
        assert clock.parts.encode > 0 and clock.parts.combine > 0
        assert sum(clock.stragglers.values()) == 1
        assert spans.frames == [(1, ""), (1, "")]
        for service in cluster.services:
            estimate = service.pace.estimate(service.pace.heard)
            assert service.pace.waiting_nanos(estimate) == 0
    assert outcomes.combined == 1


async def test_an_expert_may_be_split_over_services(outcomes: Outcomes) -> None:
    one, other = scripted(), scripted()
    async with cluster_of(one, other, **PATIENT) as cluster:
        for service in cluster.services:
            service.pace = fitted_pace(0, 10**6, frame=0)
        step = step_of([2, 2])
        assert_well(step, await cluster.compute(step))
        assert [len(service.frames[0].pair_rows) for service in (one, other)] == [4, 4]
    assert outcomes.combined == 1


async def test_a_frame_names_the_requests_of_its_rows_and_its_trace(outcomes: Outcomes) -> None:
    one, other = scripted(), scripted()
    async with cluster_of(one, other, **PATIENT) as cluster:
        cluster.place(APART)
        for lengths, expected in (([2, 2], [(0,), (0, 1)]), ([1, 1, 1, 1], [(0, 1), (1, 2, 3)])):
            step = step_of(lengths)
            assert_well(step, await cluster.compute(step))
            assert sorted([one.frames[-1].requests, other.frames[-1].requests]) == expected
    assert outcomes.combined == 2


async def test_lanes_that_are_not_alone_go_frame_by_frame(outcomes: Outcomes) -> None:
    async with cluster_of(scripted()) as cluster:
        step = step_of([2, 2])
        step.is_alone = False
        assert_well(step, await cluster.compute(step))
    assert outcomes.begun == 0


async def test_a_loop_without_a_descriptor_goes_frame_by_frame(
    outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "descriptor_of", lambda loop: None)
    async with cluster_of(scripted()) as cluster:
        step = step_of([2, 2])
        assert_well(step, await cluster.compute(step))
    assert outcomes.begun == 0


def test_compiled_code_refuses_what_does_not_fit() -> None:
    exchange = _streams.Exchange()
    pairs, owners = np.array([0, 1, 1, 0]), np.array([0, 1])

    def shared(**otherwise: Any) -> Any:
        given = {"parts": pairs, "owners": owners, "experts": None}
        sizes = {"num_pairs": 4, "num_parts": 2, "top_k": 2}
        return _streams.share_out(**({"exchange": exchange} | given | sizes | otherwise))

    assert shared() == [(0, 2, 2, 1), (1, 2, 2, 1)]
    assert shared(experts=np.array([5, 5])) == [(0, 2, 2, 1), (1, 2, 2, 1)]
    assert shared(parts=pairs - 1) == [(0, 2, 2, 1)], "those below 0 are not computed"
    for otherwise in ({"top_k": 0}, {"top_k": 3}, {"num_pairs": 5}, {"experts": owners[:1]}):
        with pytest.raises(ValueError, match=r"pairs are top_k|int64 is wanted"):
            shared(**otherwise)
    for otherwise in ({"parts": pairs + 1}, {"owners": owners - 2}, {"experts": owners - 1}):
        with pytest.raises(IndexError):
            shared(**otherwise)
    with pytest.raises(TypeError):
        shared(exchange=pairs)
    shared()
    sent: dict[str, Any] = {"traceparents": None, "rows": 0, "row_bytes": 8, "layer": 0}
    refused: tuple[Any, ...] = ([], [(1, 2, 3)] * 2, [()] * 2, [(None, 0, 0, 0, 0, 0)] * 2)
    for frames in refused:
        shared()
        with pytest.raises((ValueError, TypeError)):
            _streams.send_frames(
                exchange=exchange,
                frames=frames,
                requests=np.zeros(2, np.int64),
                element_type=1,
                checksums=True,
                **sent,
            )
    with pytest.raises(ValueError, match="not all rows"):
        _streams.sum_replies(
            exchange=exchange,
            weights=0,
            out=0,
            num_tokens=2,
            width=2,
            dtype=0,
            weights_dtype=0,
            out_dtype=0,
        )
    assert _streams.records(exchange) == []
