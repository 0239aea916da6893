"""What services did not compute of a layer, or computed wrongly, is sent again until it is done."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.router.dispatch.awaited import Awaited, Wait
from services.router.dispatch.failure import FailedPairs, FailureLog
from services.router.dispatch.gather import Gathered
from services.router.dispatch.not_finite import take_out_not_finite
from services.router.dispatch.placement import Placement
from services.router.dispatch.scatter import Attempt, Outgoing
from services.router.dispatch.unfinished import Unfinished
from services.router.engine.spans import LayerSpans
from services.router.engine.step import Step
from services.router.times.blame import Failing, InVain, Waited
from services.runtime.notice import Notice
from services.wire.expert_key import ExpertKey


@dataclass(slots=True)
class Again:
    """The layer that is computed: its step and pairs, and where spans and waits for services go."""

    step: Step
    outgoing: Outgoing
    spans: LayerSpans
    waits: list[Waited]


Try = Callable[[Step, Outgoing, Attempt, LayerSpans, list[Waited]], Awaitable[tuple[Gathered, int]]]


class Resending:
    """Makes further attempts by `make_attempt`, on the placement of the moment.

    For `unserved_seconds`, from the first failure or from when `awaited` last got on, pairs wait
    for a service that can compute them. `news` tells of placements, and of sequences that have
    ended. `are_sums` says what services return.
    """

    def __init__(
        self,
        make_attempt: Try,
        placement: Callable[[], Placement],
        news: Notice,
        awaited: Awaited,
        *,
        unserved_seconds: float,
        are_sums: bool,
    ) -> None:
        self._make_attempt = make_attempt
        self._placement = placement
        self._news = news
        self._awaited = awaited
        self._unserved_seconds = unserved_seconds
        self._are_sums = are_sums
        self._failures = FailureLog()

    async def finish(self, layer: Again, gathered: Gathered) -> None:
        """Send what failed again, and rows that are not finite, until all of it is in `gathered`,
        or its sequences have ended.
        """
        loop, outgoing = asyncio.get_running_loop(), layer.outgoing
        unfinished = Unfinished(outgoing, loop.time() + self._unserved_seconds)
        latest = gathered
        while True:
            latest.failed += take_out_not_finite(latest.returned, outgoing, are_sums=self._are_sums)
            if latest is not gathered:
                gathered.returned += latest.returned
            self._note(latest.failed, outgoing)
            unfinished.add(latest.failed, loop.time())
            began = layer.step.clock.now()
            with self._awaited.wait() as wait:
                attempt = await self._next_attempt(layer.step, unfinished, wait)
            layer.waits.append(_pause(latest.failed, began, layer.step.clock.now()))
            if attempt is None:
                return
            latest, _ = await self._make_attempt(
                layer.step, outgoing, attempt, layer.spans, layer.waits
            )

    def _note(self, failures: Sequence[FailedPairs], outgoing: Outgoing) -> None:
        """Of each service that answered otherwise than it was asked, for its trust and the log.

        Frames of one attempt that failed alike count once: what is wrong may be in the rows.
        """
        placement = self._placement()
        noted: set[tuple[str, str]] = set()
        for failed in failures:
            failure = failed.failure
            service = None if failure is None else placement.service_at(failure.address)
            if failure is not None and service is not None:
                kind = failure.address, failure.reason
                if kind not in noted:
                    noted.add(kind)
                    key = ExpertKey(outgoing.layer, int(outgoing.experts[failed.positions[0]]))
                    service.trust.note_failure(failure.reason, key, failure.message)
            self._failures.warn(failed, outgoing.layer)

    @staticmethod
    def _give_up(step: Step, unfinished: Unfinished, placement: Placement) -> bool:
        """End the sequences that no attempt could help; whether there were any."""
        agreed, hopeless = unfinished.agreed(placement), unfinished.hopeless(placement)
        for rows, error, blameless in agreed:
            step.fail(rows, error)
            for address in blameless:
                if (service := placement.service_at(address)) is not None:
                    service.trust.excuse()
        for rows, error in hopeless:
            step.fail(rows, error)
        return bool(agreed or hopeless)

    async def _next_attempt(self, step: Step, unfinished: Unfinished, wait: Wait) -> Attempt | None:
        """Wait until something can be sent again; None when nothing is left, or its time is up."""
        loop = asyncio.get_running_loop()
        while unfinished.drop_ended(step):
            placement = self._placement()
            if self._give_up(step, unfinished, placement):
                continue
            now = loop.time()
            attempt = unfinished.next_attempt(placement, step.lane, now)
            if attempt is not None:
                return attempt
            until = self._awaited.progressed_at + self._unserved_seconds
            unfinished.wait_on(wait, placement, until)
            if now >= unfinished.give_up_at:
                for rows, error in unfinished.errors(placement):
                    step.fail(rows, error)
                return None
            await self._news.wait(unfinished.seconds_to_wait(now))
            step.clock.charge("straggler_wait")
        return None


def _pause(failed: Sequence[FailedPairs], began: int, ended: int) -> InVain:
    """The wait until what failed could be sent again: for who failed it, or for anybody to ask."""
    addresses = [part.failure.address for part in failed if part.failure is not None]
    return InVain(addresses[-1] if addresses else "", began, ended, Failing.REFUSED)
