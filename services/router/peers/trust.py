"""Whether a service is given requests: from when it has computed a frame of the router's own until
too many of its answers were wrong. Policy without I/O.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from services.router.peers.question import Question
from services.router.times.retry_reasons import ANSWER_REASONS, OF_CONNECTIONS
from services.wire.expert_key import ExpertKey
from services.wire.outcomes import PASSING_REASONS

logger = logging.getLogger(__name__)


class Standing(Enum):
    """What a service is given: a trial frame at once, requests, or a trial frame after a pause."""

    UNTRIED = auto()
    TRUSTED = auto()
    QUARANTINED = auto()


@dataclass(frozen=True)
class TrustLimits:
    """How many failures among the latest answers are too many, and how long a quarantine lasts.

    A service that is busy, or hosts an expert no more, says so and is right: that is another
    matter where it says nothing else.
    """

    max_wrong: int = 3
    among_answers: int = 6
    max_passing: int = 12  # in a row
    first_pause_seconds: float = 1.0
    pause_factor: float = 3.0
    max_pause_seconds: float = 60.0
    busy_pause_seconds: float = 2.0  # where it could not compute the trial frame now
    # After so many answers a quarantine has nothing to do with the one before.
    calm_answers: int = 64


LIMITS = TrustLimits()
PASSING = frozenset(PASSING_REASONS.values())
ALTERED = "altered"  # what was computed is not what the expert gives
KNOWN_FAILURES = (*ANSWER_REASONS, ALTERED)


class Trust:
    """One service's. `on_change` is called when its standing changes, but for a new connection,
    which is told of when it is up.
    """

    def __init__(
        self,
        address: str,
        on_change: Callable[[], None],
        *,
        limits: TrustLimits = LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.standing = Standing.UNTRIED
        self.why = ""  # it is in quarantine, in words
        self.suspected: ExpertKey | None = None  # what it failed last: to be tried before others
        self.evidence: Question | None = None  # what it computed wrongly, and has to compute well
        self.num_failures: Counter[str] = Counter()  # by reason
        self._address = address
        self._on_change = on_change
        self._limits = limits
        self._clock = clock
        self._instance = ""
        self._num_answers = 0
        # After how many answers the latest failures came.
        self._wrong: deque[int] = deque(maxlen=limits.max_wrong)
        self._passing: deque[int] = deque(maxlen=limits.max_passing)
        self._is_blamed = False  # it is in quarantine for its answers
        self._pause = 0.0  # seconds of the last quarantine
        self._trusted_at = 0  # answers by then
        self._next_trial_at = 0.0  # seconds of the clock

    @property
    def is_quarantined(self) -> bool:
        """Whether it is given nothing but a trial frame from time to time."""
        return self.standing is Standing.QUARANTINED

    def connect(self, instance: str) -> None:
        """A connection was made, to this start of the service; a quarantine ends with the start
        that it is of.
        """
        if instance != self._instance:
            self._instance, self._pause, self.suspected = instance, 0.0, None
            self.evidence = None
        elif self.is_quarantined:
            return
        self._leave_trusted()
        self._set(Standing.UNTRIED)

    def note_answer(self) -> None:
        """A frame was answered, in whatever way."""
        self._num_answers += 1

    def note_failure(self, reason: str, expert: ExpertKey, message: str) -> None:
        """An answer was not what was asked for."""
        if reason in OF_CONNECTIONS:
            return
        self.num_failures[reason] += 1
        self.suspected, limits = expert, self._limits
        if reason in PASSING:
            found, among = self._passing, limits.max_passing
        else:
            found, among = self._wrong, limits.among_answers
        found.append(self._num_answers)
        is_full = len(found) == found.maxlen
        if self.standing is Standing.TRUSTED and is_full and found[-1] - found[0] < among:
            self._quarantine(f"{len(found)} of its latest answers were wrong, the last: {message}")
            self._is_blamed = True

    def convict(self, evidence: Question) -> None:
        """It computed something, and wrongly, as was found out by looking at it again.

        Pauses grow however much went well before: nobody looks at most of its answers.
        """
        self.num_failures[ALTERED] += 1
        self.evidence, key = evidence, min(evidence.keys)
        if not self.is_quarantined:
            self._quarantine(
                f"other numbers came back than expert {key.expert} of layer {key.layer} gives",
                may_be_calm=False,
            )

    def excuse(self) -> None:
        """What it failed another service fails alike: neither is to blame."""
        self._wrong.clear()
        if self._is_blamed:
            self._stand(Standing.TRUSTED)

    def doubt(self) -> None:
        """It answers probes, and left a frame unanswered."""
        if self.standing is Standing.TRUSTED:
            self._leave_trusted()
            self._stand(Standing.UNTRIED)

    def seconds_to_trial(self) -> float | None:
        """Until it is to be sent a frame of the router's own; None where it is trusted."""
        if self.standing is Standing.TRUSTED:
            return None
        if self.standing is Standing.UNTRIED:
            return 0.0
        return max(0.0, self._next_trial_at - self._clock())

    def pass_trial(self) -> None:
        """The router's frame came back well."""
        if self.is_quarantined:
            logger.info("expert service %s computes again, and is used", self._address)
        self._trusted_at, self.evidence = self._num_answers, None
        self._stand(Standing.TRUSTED)

    def put_off_trial(self) -> None:
        """It is busy, or hosts the expert no more, and said so: which is a good answer, though not
        one to end a quarantine.
        """
        if self.is_quarantined:
            self._next_trial_at = self._clock() + self._limits.busy_pause_seconds
        else:
            self.pass_trial()

    def release(self) -> None:
        """It hosts nothing that it could be tried with; the pause is over."""
        if self.is_quarantined:
            self._stand(Standing.UNTRIED)

    def fail_trial(self, why: str) -> None:
        """It did not."""
        self._quarantine(f"a frame of the router's own did not come back well: {why}")

    def _quarantine(self, why: str, *, may_be_calm: bool = True) -> None:
        limits = self._limits
        if may_be_calm:
            self._leave_trusted()
        if self._pause:
            self._pause = min(limits.max_pause_seconds, limits.pause_factor * self._pause)
        else:
            self._pause = limits.first_pause_seconds
        self._next_trial_at = self._clock() + self._pause
        logger.warning(
            "expert service %s is quarantined, and tried again in %g s: %s",
            self._address,
            self._pause,
            why,
        )
        self._stand(Standing.QUARANTINED, why)

    def _leave_trusted(self) -> None:
        """Pauses begin anew after a time in which it was good for much."""
        is_calm = self._num_answers - self._trusted_at >= self._limits.calm_answers
        if is_calm and self.standing is Standing.TRUSTED:
            self._pause = 0.0

    def _stand(self, standing: Standing, why: str = "") -> None:
        self._set(standing, why)
        self._on_change()

    def _set(self, standing: Standing, why: str = "") -> None:
        self.standing, self.why, self._is_blamed = standing, why, False
        self._wrong.clear()
        self._passing.clear()
