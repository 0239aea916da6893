"""The choice of lanes is made without clock or I/O, and so is tested: on machines that are
formulas.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from services.router.lanes.choice import AutoLanes, FixedLanes, LaneChoice, Why
from services.router.lanes.times import StepSeen

NUM_LAYERS = 6
MILLISECOND = 1_000_000


@dataclass(frozen=True)
class Machine:
    """Milliseconds of a layer: the router's own and the devices' for each row, and the wire's there
    and back.

    Where cores are shared, nothing overlaps.
    """

    own_a_row: float
    wire: float
    experts_a_row: float
    shares_cores: bool = False
    cost_a_frame: float = 0.5

    def round_millis(self, lanes: int, num_sequences: int) -> float:
        """How long every lane's step of a layer takes when so many lanes take turns."""
        rows = num_sequences / lanes
        own, experts = self.cost_a_frame + self.own_a_row * rows, self.experts_a_row * rows
        alone = own + self.wire + experts
        return alone * lanes if self.shares_cores else max(alone, own * lanes, experts * lanes)


REMOTE = Machine(own_a_row=0.5, wire=4, experts_a_row=0.5)
SHARED = Machine(own_a_row=0.2, wire=1.5, experts_a_row=0.2, shares_cores=True)
NEAR_AND_QUICK = Machine(own_a_row=0.5, wire=0.2, experts_a_row=0.01)


class Run:
    """Steps of a machine, as the policy sees them; `noise` is the spread of a step's duration."""

    def __init__(
        self, policy: AutoLanes | FixedLanes, *, noise: float = 0.0, seed: int = 0
    ) -> None:
        self.policy = policy
        self.chosen: list[LaneChoice] = []
        self._noise = noise
        self._random = random.Random(seed)
        self._nanos = 0

    def steps(
        self, count: int, machine: Machine, num_sequences: Callable[[int], int] | int
    ) -> "Run":
        for step in range(count):
            number = num_sequences if isinstance(num_sequences, int) else num_sequences(step)
            lanes = min(self.policy.choice.lanes, number)
            millis = NUM_LAYERS * machine.round_millis(lanes, number)
            self._nanos += int(
                MILLISECOND * millis / lanes * self._random.lognormvariate(0, self._noise)
            )
            self.policy.observe(self._seen(machine, number, lanes))
            self.chosen.append(self.policy.choice)
        return self

    def _seen(self, machine: Machine, num_sequences: int, lanes: int) -> StepSeen:
        rows = num_sequences // lanes
        layers = NUM_LAYERS * MILLISECOND
        return StepSeen(
            ended=self._nanos,
            own=int(layers * (machine.cost_a_frame + machine.own_a_row * rows)),
            wire=int(layers * machine.wire),
            experts=int(layers * machine.experts_a_row * rows),
            num_sequences=num_sequences,
            num_tokens=rows,
            num_drawn=rows,
        )

    @property
    def settled(self) -> int:
        """The number of lanes that was last adopted."""
        return next(choice.lanes for choice in reversed(self.chosen) if choice.why is not Why.TRIAL)

    def changes_of_mind(self) -> int:
        adopted = [choice.lanes for choice in self.chosen if choice.why is Why.MEASURED]
        return sum(before != after for before, after in pairwise(adopted))


def auto(max_lanes: int = 4) -> AutoLanes:
    return AutoLanes(max_lanes, NUM_LAYERS)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_remote_devices_get_more_lanes(noise: float) -> None:
    run = Run(auto(), noise=noise).steps(3000, REMOTE, 16)
    assert run.settled >= 2
    assert run.chosen[-1].why in (Why.MEASURED, Why.TRIAL)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_shared_cores_stay_at_one_lane_after_trying_two(noise: float, seed: int) -> None:
    run = Run(auto(), noise=noise, seed=seed).steps(3000, SHARED, 16)
    assert run.settled == 1
    assert run.changes_of_mind() == 0
    tried = [choice.lanes for choice in run.chosen if choice.why is Why.TRIAL]
    assert set(tried) == {1, 2}
    assert len(tried) < 0.1 * len(run.chosen), "a trial that failed is not repeated again and again"


def test_a_single_sequence_has_one_lane_and_no_trial() -> None:
    run = Run(auto()).steps(1000, REMOTE, 1)
    assert set(run.chosen) == {LaneChoice(1, Why.FEW_SEQUENCES)}


def test_nothing_is_tried_where_there_is_nothing_to_hide() -> None:
    run = Run(auto()).steps(1000, NEAR_AND_QUICK, 16)
    assert set(run.chosen) == {LaneChoice(1, Why.NOTHING_TO_HIDE)}


def test_there_are_never_more_lanes_than_allowed_or_than_sequences() -> None:
    allowed_two = Run(auto(max_lanes=2)).steps(3000, REMOTE, 16)
    assert {choice.lanes for choice in allowed_two.chosen} == {1, 2}
    only_one = Run(auto(max_lanes=1)).steps(500, REMOTE, 16)
    assert {choice.lanes for choice in only_one.chosen} == {1}
    changing = Run(auto()).steps(6000, REMOTE, lambda step: (16, 3, 2, 1)[step // 10 % 4])
    assert all(
        choice.lanes <= (16, 3, 2, 1)[step // 10 % 4] for step, choice in enumerate(changing.chosen)
    )


@pytest.mark.parametrize("seed", range(10))
def test_noise_does_not_make_lanes_flap_where_they_are_all_alike(seed: int) -> None:
    alike = replace(REMOTE, own_a_row=0.0, experts_a_row=0.0, wire=5.0)
    run = Run(auto(), noise=0.3, seed=seed).steps(20_000, alike, 16)
    assert run.changes_of_mind() <= 2


def test_what_was_adopted_comes_back_with_the_load() -> None:
    run = Run(auto()).steps(3000, REMOTE, 16)
    adopted = run.settled
    assert run.steps(50, REMOTE, 1).settled == 1
    assert run.steps(1, REMOTE, 16).settled == adopted


def test_one_lane_comes_back_when_cores_get_shared_and_more_when_not_any_more() -> None:
    run = Run(auto(), noise=0.05).steps(2000, REMOTE, 16)
    assert run.settled >= 2
    assert run.steps(10_000, replace(SHARED, own_a_row=0.8), 16).settled == 1
    assert run.steps(6000, REMOTE, 16).settled >= 2


def test_a_changed_load_is_tried_again_before_the_rest_is_over() -> None:
    run = Run(auto()).steps(20_000, SHARED, 16)
    resting = run.chosen[-300:]
    assert all(choice.why is Why.MEASURED for choice in resting), "by now the rests are long"
    after = run.steps(300, SHARED, 40).chosen[-300:]
    assert any(choice.why is Why.TRIAL for choice in after)


def test_a_trial_learns_nothing_from_windows_of_unlike_load() -> None:
    """The load doubles whenever two lanes are tried: without the comparison they would look twice
    as good.
    """
    policy = auto()
    run = Run(policy).steps(
        2000, SHARED, lambda _: 32 if policy.choice == LaneChoice(2, Why.TRIAL) else 16
    )
    assert run.settled == 1
    assert any(choice.lanes == 2 for choice in run.chosen)


def test_the_candidate_follows_the_times_of_a_layer() -> None:
    machine = Machine(own_a_row=0.25, wire=8, experts_a_row=0.25, cost_a_frame=0)
    run = Run(auto()).steps(10, machine, 16)
    evidence = run.policy.evidence()
    assert evidence.communication == pytest.approx(0.004)
    assert evidence.compute == pytest.approx(0.004)
    assert evidence.candidate == 4
    assert evidence.tokens_per_second == {}
    trials = run.steps(20, machine, 16).policy.evidence().tokens_per_second
    assert trials[1] == pytest.approx(16 / (NUM_LAYERS * 0.016))


def test_a_fixed_number_stays() -> None:
    run = Run(FixedLanes(3)).steps(100, SHARED, 16)
    assert set(run.chosen) == {LaneChoice(3, Why.FIXED)}
