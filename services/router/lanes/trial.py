"""A measured comparison of two numbers of lanes under the load there is: pure arithmetic on steps
as they end.
"""

import math
from collections.abc import Mapping

from services.router.lanes.times import StepSeen

# A round is a token of every sequence. After a change of lanes the first ones are a mixture of both
# numbers.
SETTLING_ROUNDS = 2
WINDOW_ROUNDS = 6
MIN_WINDOW_NANOS = 200_000_000  # so that a hiccup of milliseconds does not make a window
# Two windows are comparable when their numbers of sequences differ by no more than this share.
LOAD_TOLERANCE = 0.1
# Fewest pairs of windows for each verdict: to stay costs nothing when it was wrong, to change does.
MIN_PAIRS_TO_STAY = 2
MIN_PAIRS_TO_CHANGE = 3
MAX_PAIRS = 8
# A pair's logarithm of the ratio is taken to spread at least by this much, however alike a few
# happen to be.
MIN_SPREAD = 0.05
CONFIDENCE = 2.0  # standard errors


class Window:
    """Tokens a second of one number of lanes over some rounds."""

    def __init__(self, *, settling_rounds: int) -> None:
        self._settling_rounds = settling_rounds
        self._began: int | None = None
        self._ended = 0
        self._num_steps = self._num_drawn = self._num_tokens = self._sum_sequences = 0

    def note(self, seen: StepSeen) -> None:
        """Take a step in. The step that ends the settling is where the time begins, and is not
        counted.
        """
        if self._began is None:
            self._num_drawn += seen.num_drawn
            if self._num_drawn >= self._settling_rounds * seen.num_sequences:
                self._began, self._num_drawn = seen.ended, 0
            return
        self._ended = seen.ended
        self._num_steps += 1
        self._num_drawn += seen.num_drawn
        self._num_tokens += seen.num_tokens
        self._sum_sequences += seen.num_sequences

    @property
    def is_over(self) -> bool:
        return (
            self._began is not None
            and self._num_drawn >= WINDOW_ROUNDS * self.num_sequences
            and self._ended - self._began >= MIN_WINDOW_NANOS
        )

    @property
    def num_sequences(self) -> float:
        """Their mean."""
        return self._sum_sequences / max(1, self._num_steps)

    @property
    def is_mostly_prefill(self) -> bool:
        return self._num_tokens > 2 * self._num_drawn

    @property
    def tokens_per_second(self) -> float:
        return 1e9 * self._num_drawn / max(1, self._ended - (self._began or 0))


class Trial:
    """Compares `other` lanes with the `present` ones in windows that take turns: A B, B A, A B and
    so on.

    `other` is `better` when its tokens a second are more by `margin`, a share, beyond what the
    noise between pairs explains. While that is not decided `better` is None. `lanes` is what runs
    now.
    """

    def __init__(self, present: int, other: int, *, margin: float) -> None:
        self.present = present
        self.other = other
        self.better: bool | None = None
        self._bound = math.log1p(margin)
        self._log_ratios: list[float] = []
        self._num_pairs = 0  # void ones too
        self._windows: dict[int, Window] = {}
        self._rates: dict[int, float] = {}
        self._begin(present)

    def note(self, seen: StepSeen) -> None:
        """Take a step in."""
        window = self._windows[self.lanes]
        window.note(seen)
        if not window.is_over:
            return
        self._rates[self.lanes] = window.tokens_per_second
        if len(self._windows) == 1:
            self._begin(self.present + self.other - self.lanes)
            return
        self._end_pair()
        if self.better is None:
            self._windows.clear()
            self._begin(
                self.lanes, settling_rounds=0
            )  # the pairs alternate, so that a drift of the load cancels

    @property
    def tokens_per_second(self) -> Mapping[int, float]:
        """By lanes, of each one's latest window."""
        return self._rates

    def _begin(self, lanes: int, *, settling_rounds: int = SETTLING_ROUNDS) -> None:
        self.lanes = lanes
        self._windows[lanes] = Window(settling_rounds=settling_rounds)

    def _end_pair(self) -> None:
        self._num_pairs += 1
        present, other = self._windows[self.present], self._windows[self.other]
        is_alike = abs(present.num_sequences / other.num_sequences - 1) <= LOAD_TOLERANCE
        if is_alike and not present.is_mostly_prefill and not other.is_mostly_prefill:
            self._log_ratios.append(math.log(other.tokens_per_second / present.tokens_per_second))
        self.better = self._verdict()

    def _verdict(self) -> bool | None:
        num = len(self._log_ratios)
        if num >= MIN_PAIRS_TO_STAY:
            mean = sum(self._log_ratios) / num
            variance = sum((ratio - mean) ** 2 for ratio in self._log_ratios) / (num - 1)
            doubt = CONFIDENCE * max(MIN_SPREAD, math.sqrt(variance)) / math.sqrt(num)
            if mean - doubt > self._bound and num >= MIN_PAIRS_TO_CHANGE:
                return True
            if mean + doubt < self._bound:
                return False
        return False if self._num_pairs >= MAX_PAIRS else None
