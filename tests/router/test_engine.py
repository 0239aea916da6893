"""Every order ends exactly once, whatever happens to its steps."""

import asyncio
import math
from collections.abc import Sequence as Sequenced
from dataclasses import replace

import pytest
import torch

from services.router.engine.drawing import MOST_LOGITS_ON_LOOP
from services.router.engine.greenlets import await_
from services.router.engine.sequence import EndReason, Scoring
from services.router.engine.step import Step
from services.router.lanes.choice import FixedLanes
from services.wire.errors import Unavailable
from services.wire.sampling import Sampling
from tests.router.scripted_engine import VOCAB, Heard, RestlessLanes, ScriptedTrunk, engine, order


@pytest.mark.parametrize("lanes", [1, 3])
async def test_orders_run_to_their_limits(lanes: int) -> None:
    async with engine(ScriptedTrunk(), lanes=FixedLanes(lanes)) as running:
        heard = [Heard() for _ in range(5)]
        for listener in heard:
            running.submit(order(prompt=20), listener)
        assert [await listener.reason() for listener in heard] == [EndReason.LENGTH] * 5
        assert all(listener.tokens == [1] * 4 for listener in heard)


async def test_sequences_change_lanes_between_their_steps_and_never_in_them() -> None:
    in_a_step: set[int] = set()
    lanes_of: dict[int, set[int]] = {}

    def act(step: Step) -> torch.Tensor:
        numbers = {work.sequence.number for work in step.batch}
        assert not numbers & in_a_step
        in_a_step.update(numbers)
        for _ in range(3):
            await_(asyncio.sleep(0))
        in_a_step.difference_update(numbers)
        for number in numbers:
            lanes_of.setdefault(number, set()).add(step.lane)
        logits = torch.zeros(len(step.drawing), VOCAB)
        for row, sequence in enumerate(step.drawing):
            logits[row, sequence.num_tokens % VOCAB] = (
                1.0  # the position, so that one lost or doubled would show
            )
        return logits

    async with engine(ScriptedTrunk(act), lanes=RestlessLanes(1, 3, 2, 3, 1, 2)) as running:
        heard = [Heard() for _ in range(5)]
        for listener in heard:
            running.submit(order(prompt=2, new=30), listener)
        assert [await listener.reason() for listener in heard] == [EndReason.LENGTH] * 5
    assert all(
        listener.tokens == [position % VOCAB for position in range(2, 32)] for listener in heard
    )
    assert any(len(lanes) > 1 for lanes in lanes_of.values())


async def test_a_repetition_penalty_counts_prompt_and_continuation_of_its_own_order() -> None:
    def act(step: Step) -> torch.Tensor:
        return torch.linspace(2.0, 1.0, VOCAB).repeat(len(step.drawing), 1)

    penalty = Sampling(temperature=0.0, repetition_penalty=50.0)
    async with engine(ScriptedTrunk(act)) as running:
        plain, penalised = Heard(), Heard()
        running.submit(order(), plain)
        running.submit(replace(order(), sampling=penalty), penalised)
        assert await plain.reason() == await penalised.reason() == EndReason.LENGTH
    assert plain.tokens == [0] * 4  # of which the prompt consists
    assert penalised.tokens == [1, 2, 3, 4]


def by_position(step: Step) -> torch.Tensor:
    """Logits that make the token after position p likeliest at p; those of scored rows are left
    with the step.
    """
    positions = [
        work.sequence.num_computed + place
        for work in step.batch
        for place in range(work.num_tokens)
    ]
    logits = torch.zeros(len(positions), VOCAB)
    for row, position in enumerate(positions):
        logits[row, (position + 1) % VOCAB] = 1.0
    if len(step.read_rows) > len(step.last_rows):
        step.scored = logits[step.scored_rows]
    return logits[step.last_rows]


async def test_the_likelihoods_of_a_prompt_are_its_own_however_it_is_cut() -> None:
    prompt = tuple((position + position // 5) % VOCAB for position in range(21))
    likeliest = math.log(math.e / (math.e + VOCAB - 1))
    async with engine(ScriptedTrunk(by_position)) as running:
        heard = [Heard() for _ in range(3)]
        for listener in heard:  # of which eight tokens are computed in a step, together
            asked = replace(order(), prompt=prompt, scoring=Scoring(1, len(prompt)))
            running.submit(asked, listener)
        for listener in heard:
            assert await listener.reason() == EndReason.LENGTH
            assert listener.sequence is not None
            scores = listener.sequence.prompt_scores
            assert [score.token for score in scores] == list(prompt[1:])
            for position, score in enumerate(scores, 1):
                assert [token for token, _ in score.top] == [position % VOCAB]
                is_likeliest = prompt[position] == position % VOCAB
                expected = likeliest - (0.0 if is_likeliest else 1.0)
                assert score.logprob == pytest.approx(expected, abs=1e-6)


async def test_a_prompt_whose_logits_are_not_finite_ends_its_order_alone() -> None:
    def act(step: Step) -> torch.Tensor:
        logits = by_position(step)
        if step.scored is not None:
            step.scored[-1, 3] = float("inf")
        return logits

    async with engine(ScriptedTrunk(act)) as running:
        scored, plain = Heard(), Heard()
        running.submit(replace(order(), scoring=Scoring(0, 3)), scored)
        running.submit(replace(order(), scoring=Scoring(0)), plain)
        assert await scored.reason() == EndReason.ERROR
        assert await plain.reason() == EndReason.LENGTH


async def test_a_draw_from_many_logits_is_made_beside_the_loop() -> None:
    turns = 0

    def act(step: Step) -> torch.Tensor:
        logits = torch.zeros(len(step.drawing), MOST_LOGITS_ON_LOOP + 1)
        logits[:, 7] = 1.0
        asyncio.get_running_loop().call_soon(note, step)
        return logits

    def note(step: Step) -> None:
        nonlocal turns
        turns += not step.drawing[0].generated

    async with engine(ScriptedTrunk(act)) as running:
        heard = Heard()
        running.submit(order(new=1), heard)
        assert await heard.reason() == EndReason.LENGTH
    assert heard.tokens == [7]
    assert turns == 1, "what became of the loop's turn was before the token"


async def test_a_stop_token_is_reported_and_ends_the_order() -> None:
    async with engine(ScriptedTrunk()) as running:
        heard = Heard()
        running.submit(order(stop_token_ids=frozenset({1})), heard)
        assert await heard.reason() == EndReason.STOP
        assert heard.tokens == [1]


async def test_a_failed_step_ends_its_orders_and_later_ones_are_served() -> None:
    outcomes = iter([RuntimeError("no memory")])

    def act(step: Step) -> torch.Tensor:
        for error in outcomes:
            raise error
        return torch.zeros(len(step.drawing), VOCAB)

    async with engine(ScriptedTrunk(act)) as running:
        failed, later = Heard(), Heard()
        running.submit(order(), failed)
        assert await failed.reason() == EndReason.ERROR
        running.submit(order(), later)
        assert await later.reason() == EndReason.LENGTH


async def test_logits_that_are_not_finite_end_their_order_alone() -> None:
    def act(step: Step) -> torch.Tensor:
        logits = torch.zeros(len(step.drawing), VOCAB)
        for row, sequence in enumerate(step.drawing):
            if len(sequence.order.prompt) == 2:
                logits[row, 5] = float("nan")
        return logits

    async with engine(ScriptedTrunk(act)) as running:
        broken, whole = Heard(), Heard()
        running.submit(order(prompt=2), broken)
        running.submit(order(prompt=3), whole)
        assert await broken.reason() == EndReason.ERROR
        assert broken.sequence and "not finite" in str(broken.sequence.ending.error)  # type: ignore[union-attr]
        assert await whole.reason() == EndReason.LENGTH


async def test_cancelling_in_the_middle_of_a_step_ends_the_order_and_tells_the_experts() -> None:
    forgotten: list[Sequenced[int]] = []
    trunk, heard = ScriptedTrunk(), Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk, forgotten) as running:
        sequence = running.submit(order(), heard)
        await trunk.entered.wait()
        running.cancel(sequence)
        running.cancel(sequence)
        assert forgotten == [[sequence.number]]
        trunk.gate.set()
        assert await heard.reason() == EndReason.CANCELLED
        assert heard.tokens == []


async def test_an_order_that_is_given_up_ends_at_once_though_its_step_hangs() -> None:
    trunk, cancelled, late = ScriptedTrunk(), Heard(), Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk) as running:
        sequence = running.submit(order(), cancelled)
        running.submit(order(), late, seconds=0.01)
        await trunk.entered.wait()
        running.cancel(sequence)
        assert await cancelled.reason() == EndReason.CANCELLED
        assert await late.reason() == EndReason.DEADLINE
        assert late.sequence and late.sequence.ending and late.sequence.ending.error is None
        assert running.room().kv_tokens < 256, "the step still uses their blocks"
        trunk.gate.set()


async def test_a_lane_that_sleeps_is_woken_for_an_order_that_another_lane_lets_in() -> None:
    async with engine(ScriptedTrunk(), lanes=FixedLanes(2)) as running:
        # The second lane gets the two short ones, and what they free lies too far apart for the
        # last one.
        sizes = [(30, 34), (1, 1), (30, 20), (1, 1), (30, 34), (60, 4)]
        heard = [Heard() for _ in sizes]
        for (prompt, new), listener in zip(sizes, heard, strict=True):
            running.submit(order(prompt, new), listener)
        assert [await listener.reason() for listener in heard] == [EndReason.LENGTH] * 6


async def test_a_router_that_stops_ends_what_is_left_with_unavailable() -> None:
    trunk, heard = ScriptedTrunk(), Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk) as running:
        running.submit(order(), heard)
        await trunk.entered.wait()
        running.abandon()
        assert await heard.reason() == EndReason.ERROR
        assert heard.sequence and heard.sequence.ending
        assert isinstance(heard.sequence.ending.error, Unavailable)
        trunk.gate.set()


async def test_a_deadline_passes_while_waiting_and_while_running() -> None:
    trunk, running_one, waiting_one = ScriptedTrunk(), Heard(), Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk) as running:
        running.submit(order(), running_one, seconds=0.01)
        await trunk.entered.wait()
        running.submit(order(prompt=50, new=10), waiting_one, seconds=0.0)
        asyncio.get_running_loop().call_later(0.05, trunk.gate.set)
        assert await running_one.reason() == EndReason.DEADLINE
        assert await waiting_one.reason() == EndReason.DEADLINE


async def test_draining_takes_nothing_in_and_returns_when_all_have_ended() -> None:
    trunk, heard = ScriptedTrunk(), Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk) as running:
        running.submit(order(), heard)
        await trunk.entered.wait()
        draining = asyncio.ensure_future(running.drain())
        await asyncio.sleep(0)
        assert running.room().sequences == 0
        with pytest.raises(Unavailable, match="stopping"):
            running.submit(order(), Heard())
        trunk.gate.set()
        await draining
        assert heard.ended.is_set()
