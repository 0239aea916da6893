"""The pairs of one layer that are still to be computed: when, and to whom, they are sent again.
Policy without I/O.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from services.router.arrays import Indices
from services.router.dispatch.awaited import Wait
from services.router.dispatch.failure import FailedPairs, ServiceFailure
from services.router.dispatch.frame_pairs import DROPPED
from services.router.dispatch.placement import Placement
from services.router.dispatch.scatter import Attempt, Outgoing, attempt_at
from services.router.dispatch.verdicts import Verdicts
from services.router.engine.step import Step
from services.wire.errors import BadState, ServingError, Unavailable
from services.wire.expert_key import ExpertKey

# Before a service that failed an expert's pairs is asked for them again, doubled each time.
FIRST_PAUSE_SECONDS = 0.001
MAX_PAUSE_SECONDS = 0.05


@dataclass(slots=True)
class _Plan:
    """Services to choose from, by expert: some that have not failed it, or only such that have."""

    fresh: dict[int, Sequence[int]] = field(default_factory=dict)
    tried: dict[int, Sequence[int]] = field(default_factory=dict)


class Unfinished:
    """Counts an expert's failed attempts; times are seconds of the event loop's clock.

    A service that failed an expert's pairs is asked for them again only where no other replica is
    left, after a pause, and until `give_up_at`. Whatever is placed anew is asked at once.
    """

    def __init__(self, outgoing: Outgoing, give_up_at: float) -> None:
        self.give_up_at = give_up_at
        self._outgoing = outgoing
        self._is_pending = np.zeros(len(outgoing.experts), dtype=bool)
        self._failures: dict[int, list[ServiceFailure]] = {}
        self._verdicts = Verdicts(len(outgoing.experts))
        self._pause = FIRST_PAUSE_SECONDS
        self._next_try_at = 0.0
        self._is_pausing = False  # else there is nobody to ask

    def add(self, failed: Iterable[FailedPairs], now: float) -> None:
        """What an attempt left."""
        for part in failed:
            self._is_pending[part.positions] = True
            self._verdicts.add(part)
            if part.failure is not None:
                for expert in np.unique(self._outgoing.experts[part.positions]).tolist():
                    self._failures.setdefault(expert, []).append(part.failure)
        self._next_try_at = now + self._pause
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)

    def drop_ended(self, step: Step) -> bool:
        """Forget the pairs of sequences that have ended; whether any are left."""
        positions = np.flatnonzero(self._is_pending)
        self._is_pending[positions] = step.goes_on(positions // self._outgoing.top_k)
        return bool(self._is_pending.any())

    def next_attempt(self, placement: Placement, lane: int, now: float) -> Attempt | None:
        """What can be sent now; the pairs in it are no longer unfinished. None where there is
        nothing but to wait.
        """
        plan = self._plan(placement, lane)
        may_repeat = self._next_try_at <= now < self.give_up_at
        self._is_pausing = bool(plan.tried)
        choices = plan.fresh | plan.tried if may_repeat else plan.fresh
        if not choices:
            return None
        experts = self._take(choices)
        return attempt_at(placement, self._outgoing.layer, experts, choices, self._failures)

    def seconds_to_wait(self, now: float) -> float:
        """Until there is something to do though no placement comes and no sequence ends."""
        until = min(self._next_try_at, self.give_up_at) if self._is_pausing else self.give_up_at
        return max(0.0, until - now)

    def wait_on(self, wait: Wait, placement: Placement, until: float) -> None:
        """Say in `wait` what nobody hosts for now; where there is such, nothing is given up before
        `until`.
        """
        layer = self._outgoing.layer
        experts = (expert for expert, _ in self._by_expert())
        unhosted = {
            ExpertKey(layer, expert)
            for expert in experts
            if not placement.candidates(layer, expert)
        }
        wait.turn_to(unhosted)
        if unhosted:
            self.give_up_at = max(self.give_up_at, until)

    def errors(self, placement: Placement) -> list[tuple[Indices, ServingError]]:
        """For each expert that is given up the rows that need it, and why."""
        return [
            (self._rows(positions), self._error(expert, placement))
            for expert, positions in self._by_expert()
        ]

    def hopeless(self, placement: Placement) -> list[tuple[Indices, ServingError]]:
        """The same for experts that nobody hosts or could load: waiting for them is of no use."""
        if not placement.unhosted.is_final:
            return []
        error = "nobody hosts expert {} of layer {}, or can load it: {}"
        reasons = "; ".join(placement.unhosted.reasons)
        return [
            (self._rows(positions), BadState(error.format(expert, self._outgoing.layer, reasons)))
            for expert, positions in self._by_expert()
            if not placement.candidates(self._outgoing.layer, expert)
        ]

    def agreed(self, placement: Placement) -> list[tuple[Indices, ServingError, Sequence[str]]]:
        """The same for pairs that services agree on, with the addresses of these, who are not to
        blame: asking more of them is of no use.
        """
        layer, error = self._outgoing.layer, "expert {} of layer {} could not be computed: {}"

        def candidates(expert: int) -> Set[str]:
            return placement.addresses_of(layer, expert)

        return [
            (
                self._rows(agreed.positions),
                ServingError(error.format(expert, layer, agreed.why)),
                agreed.services,
            )
            for expert, positions in self._by_expert()
            for agreed in self._verdicts.agreed(expert, positions, candidates)
        ]

    def _rows(self, positions: Indices) -> Indices:
        return positions // self._outgoing.top_k

    def _by_expert(self) -> list[tuple[int, Indices]]:
        positions = np.flatnonzero(self._is_pending)
        experts = self._outgoing.experts[positions]
        return [(expert, positions[experts == expert]) for expert in np.unique(experts).tolist()]

    def _plan(self, placement: Placement, lane: int) -> _Plan:
        plan, services = _Plan(), placement.services
        for expert, _ in self._by_expert():
            candidates = [
                service
                for service in placement.candidates(self._outgoing.layer, expert)
                if lane < len(services[service].streams)
            ]
            failures = self._failures.get(expert, [])
            failed = {failure.address for failure in failures}
            if fresh := [
                service for service in candidates if services[service].address not in failed
            ]:
                plan.fresh[expert] = fresh
            elif candidates:
                others = [
                    service
                    for service in candidates
                    if services[service].address != failures[-1].address
                ]
                plan.tried[expert] = others or candidates
        return plan

    def _take(self, chosen: Iterable[int]) -> Indices:
        experts = np.where(self._is_pending, self._outgoing.experts, DROPPED)
        experts[~np.isin(experts, list(chosen))] = DROPPED
        self._is_pending[experts != DROPPED] = False
        return experts

    def _error(self, expert: int, placement: Placement) -> ServingError:
        failures, layer = self._failures.get(expert), self._outgoing.layer
        reasons = "".join(f"; {reason}" for reason in placement.unhosted.reasons)
        if not placement.candidates(layer, expert):
            state = placement.unhosted.state_of(layer, expert)
            if state:
                return Unavailable(f"{state}, and for long none came{reasons}")
        if not failures:
            return Unavailable(f"no live service hosts expert {expert} of layer {layer}{reasons}")
        return Unavailable(
            f"expert {expert} of layer {layer} could not be computed: {failures[-1].message}"
        )
