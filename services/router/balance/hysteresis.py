"""When a plan is worth carrying out: what it is to gain, and how long the last one was let be."""

from collections.abc import Iterable

# A plan that gained less than this share of what was predicted was made for a load that did not
# last.
LEAST_KEPT = 0.5
# The wait doubles with each such plan, up to so many times the cooldown.
MAX_WAITS = 32.0


class Hysteresis:
    """Keeps placements from going to and fro; times are seconds of any one clock.

    A plan has to gain `least_gain`, a share of the step's expert time, by every load it is judged
    by. After one that was carried out nothing is done for `cooldown_seconds`: twice as long for
    each one that fell far short of what was predicted or failed, half as long again for each that
    did not, and never less than that.
    """

    def __init__(self, least_gain: float, cooldown_seconds: float) -> None:
        self.wait_seconds = cooldown_seconds
        self._least_gain = least_gain
        self._cooldown_seconds = cooldown_seconds
        self._not_before = float("-inf")

    def seconds_left(self, now: float) -> float:
        """Until a plan may be carried out; 0 when it may."""
        return max(0.0, self._not_before - now)

    def is_worth(self, gains: Iterable[float]) -> bool:
        """Whether a plan of such gains is to be carried out."""
        return min(gains) >= self._least_gain

    def note_outcome(self, predicted_gain: float, achieved_gain: float, now: float) -> None:
        """A plan was carried out, and is known by the load that came after it."""
        self._wait(now, has_kept=achieved_gain >= LEAST_KEPT * predicted_gain)

    def note_end(self, now: float) -> None:
        """A plan was carried out, and nothing can be said of what it brought."""
        self._not_before = now + self.wait_seconds

    def note_failure(self, now: float, draw: float) -> None:
        """A plan could not be carried out; `draw`, from 0 to 1, is random: of two planners one is
        to get ahead.
        """
        self._wait(now, has_kept=False)
        self._not_before = now + (0.5 + draw) * self.wait_seconds

    def _wait(self, now: float, *, has_kept: bool) -> None:
        factor = 0.5 if has_kept else 2.0
        longest = MAX_WAITS * self._cooldown_seconds
        self.wait_seconds = min(longest, max(self._cooldown_seconds, factor * self.wait_seconds))
        self._not_before = now + self.wait_seconds
