"""Who cost a layer most of the time that it waited."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Protocol


class Failing(StrEnum):
    """How a service failed to do what it was waited for."""

    SILENT = "silent"  # it did not answer, or not before another one did its work
    REFUSED = "refused"  # it answered without a result


class Waited(Protocol):
    """A wait for one service, in nanoseconds of one clock: from when it was asked until the wait
    was over.
    """

    @property
    def service(self) -> str: ...
    @property
    def sent(self) -> int: ...
    @property
    def arrived(self) -> int: ...


@dataclass(frozen=True, slots=True)
class InVain:
    """A wait that the service did not end by a result; `instead` is who did its work meanwhile, if
    anybody. Where nobody could be asked the service is empty.
    """

    service: str
    sent: int
    arrived: int
    failing: Failing = Failing.SILENT
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Blame:
    """The straggler of a layer, and the nanoseconds that it cost. Where most of them were in vain
    `failing` says why and `instead` who did its work, if anybody did.
    """

    service: str
    nanos: int
    failing: Failing | None = None
    instead: str = ""


_arrival = attrgetter("arrived")


def blame(waits: Sequence[Waited]) -> Blame | None:
    """The service that cost the layer most time; None where it waited for nobody.

    Each moment is charged once: of the services waited for at that moment to the one whose wait
    was over last, for without it the layer would not have waited; of such that ended together to
    the one listed first. So one that hung is charged until its work was sent to another, and that
    other from there on. A copy of a late frame is not listed: it was sent for the first one's
    delay, which lasts until the quicker of both came. The most nanoseconds decide, and among equal
    ones the wait that was over last.
    """
    costs: dict[str, int] = {}
    longest: dict[str, tuple[int, Waited]] = {}
    until: int | None = None
    for wait in sorted(waits, key=_arrival, reverse=True):
        ended = wait.arrived if until is None else min(wait.arrived, until)
        nanos = max(0, ended - wait.sent)
        until = ended - nanos
        service = wait.service
        costs[service] = costs.get(service, 0) + nanos
        if service not in longest or nanos > longest[service][0]:
            longest[service] = nanos, wait
    if not costs:
        return None
    service = max(costs, key=costs.__getitem__)
    wait = longest[service][1]
    if not isinstance(wait, InVain):
        return Blame(service, costs[service])
    return Blame(service, costs[service], wait.failing, wait.instead or _who_did_it(wait, waits))


def _who_did_it(wait: InVain, waits: Sequence[Waited]) -> str:
    """Who answered last of those that were asked after the wait, if anybody was."""
    answers = [one for one in waits if one.sent >= wait.arrived and not isinstance(one, InVain)]
    return max(answers, key=_arrival).service if answers else ""
