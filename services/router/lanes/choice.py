"""How many lanes run: a fixed number, or one unless more are measured to be better. Policy without
clock or I/O.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.router.lanes.times import LayerTimes, StepSeen
from services.router.lanes.trial import Trial

# Rounds, a token of every sequence each, before the first trial and after a change for the better.
FIRST_REST_ROUNDS = 16
# After a trial that changed nothing, doubled each time: a trial costs a few rounds of what is
# worse.
MIN_REST_ROUNDS = 256
MAX_REST_ROUNDS = 8192
# What was measured no longer tells when waiting or load have changed by this factor.
CHANGED_FACTOR = 1.5
LOAD_WEIGHT = 0.02  # of a step in the running mean of sequences
# More lanes have to gain this share, fewer need only lose nothing: what lies between does not make
# them flap.
UP_MARGIN = 0.05
DOWN_MARGIN = 0.0


class Why(enum.Enum):
    """Why so many lanes run."""

    FIXED = "fixed"
    FEW_SEQUENCES = "few_sequences"
    UNTRIED = "untried"
    NOTHING_TO_HIDE = "nothing_to_hide"
    TRIAL = "trial"
    MEASURED = "measured"


@dataclass(frozen=True)
class LaneChoice:
    """How many lanes to run, and why."""

    lanes: int
    why: Why


@dataclass(frozen=True)
class Evidence:
    """What a choice rests on: seconds for a layer, the lanes they suggest, and tokens a second by
    lanes as tried.
    """

    communication: float = 0.0
    compute: float = 0.0
    whole: float = 0.0
    candidate: int = 1
    tokens_per_second: Mapping[int, float] = field(default_factory=dict)


class Lanes(Protocol):
    """Chooses between 1 and `max_lanes`; told of each step as it ends."""

    max_lanes: int
    choice: LaneChoice

    def observe(self, seen: StepSeen) -> None:
        """Take a step in; `choice` holds from here on."""

    def evidence(self) -> Evidence:
        """What the choice rests on now."""


class FixedLanes:
    """As many as were asked for."""

    def __init__(self, num_lanes: int) -> None:
        self.max_lanes = num_lanes
        self.choice = LaneChoice(num_lanes, Why.FIXED)

    def observe(self, seen: StepSeen) -> None:
        """Nothing is learnt."""

    def evidence(self) -> Evidence:
        """None is needed."""
        return Evidence()


class AutoLanes:
    """One lane unless more are measured to be better.

    The times of a layer say up to how many lanes are worth a trial; a trial compares one more or
    one less with the present number, and its verdict decides. What was adopted is kept while there
    are too few sequences for it.
    """

    def __init__(self, max_lanes: int, num_layers: int) -> None:
        self.max_lanes = max_lanes
        self.choice = LaneChoice(1, Why.UNTRIED)
        self._adopted = LaneChoice(1, Why.UNTRIED)
        self._times = LayerTimes(num_layers)
        self._trial: Trial | None = None
        self._rates: Mapping[int, float] = {}
        self._rest = float(FIRST_REST_ROUNDS)
        self._next_rest = MIN_REST_ROUNDS
        self._tried_up = False
        self._load = 0.0
        self._judged_at: tuple[float, float] | None = None  # conditions of the latest verdict

    def observe(self, seen: StepSeen) -> None:
        """Take a step in; `choice` holds from here on."""
        if (
            self._trial is None
        ):  # a trial's steps have other sizes, and would look like changed conditions
            self._times.note(seen)
        self._load += (
            LOAD_WEIGHT * (seen.num_sequences - self._load) if self._load else seen.num_sequences
        )
        limit = min(self.max_lanes, seen.num_sequences)
        if self._trial is not None:
            self._go_on(self._trial, seen, limit)
        elif limit > 1:
            self._rest -= seen.num_drawn / seen.num_sequences
            self._note_change()
            if self._rest <= 0:
                self._trial = self._next_trial(limit)
        self.choice = self._choose(limit)

    def evidence(self) -> Evidence:
        """What the choice rests on now."""
        times = self._times
        return Evidence(
            communication=times.communication / 1e9,
            compute=times.compute / 1e9,
            whole=times.whole / 1e9,
            candidate=times.candidate,
            tokens_per_second=self._rates,
        )

    def _choose(self, limit: int) -> LaneChoice:
        if limit <= 1:
            return LaneChoice(1, Why.FEW_SEQUENCES)
        if self._trial is not None:
            return LaneChoice(self._trial.lanes, Why.TRIAL)
        if self._adopted.lanes > limit:
            return LaneChoice(limit, Why.FEW_SEQUENCES)
        if self._adopted.lanes == 1 and self._times.candidate == 1:
            return LaneChoice(1, Why.NOTHING_TO_HIDE)
        return self._adopted

    def _go_on(self, trial: Trial, seen: StepSeen, limit: int) -> None:
        if max(trial.present, trial.other) > limit:
            self._trial, self._rest = None, float(FIRST_REST_ROUNDS)  # nothing was learnt
            return
        trial.note(seen)
        self._rates = trial.tokens_per_second
        if trial.better is None:
            return
        self._trial = None
        if trial.better:
            self._judged_at = None
            self._adopted = LaneChoice(trial.other, Why.MEASURED)
            self._rest, self._next_rest = float(FIRST_REST_ROUNDS), MIN_REST_ROUNDS
            self._tried_up = trial.other < trial.present  # goes on in the same direction
        else:
            self._judged_at = self._conditions()
            self._adopted = LaneChoice(trial.present, Why.MEASURED)
            self._rest, self._next_rest = (
                float(self._next_rest),
                min(MAX_REST_ROUNDS, 2 * self._next_rest),
            )

    def _next_trial(self, limit: int) -> Trial | None:
        """One more lane or one less, in turn where both are worth it."""
        lanes = self._adopted.lanes
        can_go_up = lanes < min(limit, self._times.candidate)
        can_go_down = 1 < lanes <= limit
        if can_go_up and not (can_go_down and self._tried_up):
            self._tried_up = True
            return Trial(lanes, lanes + 1, margin=UP_MARGIN)
        if can_go_down:
            self._tried_up = False
            return Trial(lanes, lanes - 1, margin=DOWN_MARGIN)
        return None

    def _note_change(self) -> None:
        """Try again soon when the conditions are not those of the latest verdict any more."""
        if self._judged_at is None:
            return
        changes = [new / old for new, old in zip(self._conditions(), self._judged_at, strict=True)]
        if min(changes) < 1 / CHANGED_FACTOR or max(changes) > CHANGED_FACTOR:
            self._judged_at, self._next_rest = None, MIN_REST_ROUNDS
            self._rest = min(self._rest, float(FIRST_REST_ROUNDS))

    def _conditions(self) -> tuple[float, float]:
        """A layer's whole time for each of the router's own computing, and the load."""
        return 1 + self._times.waiting_ratio, self._load
