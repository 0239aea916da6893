"""Keeps every expert hosted: what is lost is loaded elsewhere, who drains is emptied, who is new
gets a share.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence

from services.router.hosting.members import Members
from services.router.hosting.operations import Operations
from services.router.hosting.survey import Survey
from services.router.hosting.transfers import TransferResult, Transfers
from services.router.hosting.waits import WAITS, Waits
from services.router.peers.peer import ExpertPeer
from services.router.planning.goals import Even, Goal, Trimmed, WantedHosting, Without
from services.router.planning.host import Host
from services.router.planning.targets import Missing, missing_replicas
from services.runtime.failures import leave_aside
from services.runtime.notice import Notice
from services.wire.errors import BadState, ServingError
from services.wire.expert_key import ExpertKey

logger = logging.getLogger(__name__)


class Keeper:
    """Looks after hosting whenever it changes.

    Experts without a replica are loaded at once, whatever else is under way; the rest waits for
    operations to end, and is done where `plans` says that this router plans. Until all experts have
    been hosted for the first time it is starting: what cannot be done then is raised, later it is
    logged and tried again when something changes.
    `num_below` tells how many experts are ready on fewer services, `next_batch` which of some, each
    of so many bytes, are loaded next.
    """

    def __init__(
        self,
        survey: Survey,
        transfers: Transfers,
        operations: Operations,
        wanted: WantedHosting,
        members: Members,
        changed: Notice,
        num_below: Callable[[int], int],
        next_batch: Callable[[Sequence[ExpertKey], int], list[ExpertKey]],
        plans: Callable[[], bool],
        *,
        requires_coverage: bool,
        waits: Waits = WAITS,
    ) -> None:
        self._is_starting = True
        self._survey = survey
        self._transfers = transfers
        self._operations = operations
        self._wanted = wanted
        self._members = members
        self._changed = changed
        self._num_below = num_below
        self._next_batch = next_batch
        self._plans = plans
        self._requires_coverage = requires_coverage
        self._waits = waits
        self._uncovered_since: float | None = None
        self._own_not_before = 0.0
        self._name = f"router-{uuid.uuid4().hex[:8]}"
        self._num_own = 0
        self._last_message = ""

    async def run(self) -> None:
        """Keep until cancelled. Raises ServingError when the start cannot succeed."""
        async with asyncio.TaskGroup() as loads:
            while True:
                await self._changed.wait(self._look(loads))

    def note_complete(self) -> None:
        """All experts are hosted for the first time: the start is over."""
        self._is_starting = False
        self._survey.note_shared()

    def _look(self, loads: asyncio.TaskGroup) -> float | None:
        try:
            return self._look_after(loads)
        except Exception as error:  # the boundary of looking after: requests are served meanwhile
            if self._is_starting:
                raise
            leave_aside(error, "looking after the hosting")
            return self._waits.own_retry_seconds

    def _look_after(self, loads: asyncio.TaskGroup) -> float | None:
        """Begin what is to be done now; in how many seconds to look again even if
        nothing changes.
        """
        hosts, now = self._survey.hosts(self._emptied()), asyncio.get_running_loop().time()
        due = [self._survey.seconds_until_given_up(), self._survey.seconds_until_asked_again()]
        if self._are_all_busy():  # what is missing is planned for when somebody can take it
            return min((seconds for seconds in due if seconds is not None), default=None)
        missing = self._missing(hosts, 1)
        is_short = missing.shortage is not None
        self._note_shortage(missing, hosts)
        if missing.loads:
            self._load(loads, missing, in_background=False)
        elif self._operations.current is None and (self._is_starting or self._plans()):
            due.append(self._cover(loads, hosts, now))
            if now < self._own_not_before:
                due.append(self._own_not_before - now)
            elif self._transfers.is_idle() and (is_short or not self._is_starting):
                due.append(self._tidy(hosts))
        return min((seconds for seconds in due if seconds is not None), default=None)

    def _are_all_busy(self) -> bool:
        live = [peer.address for peer in self._members.peers if peer.is_live]
        return bool(live) and all(self._transfers.on(address) is not None for address in live)

    def _missing(self, hosts: Sequence[Host], coverage: int) -> Missing:
        is_certain = not any(host.is_draining and host.hosted for host in hosts)
        if is_certain and self._num_below(coverage) == 0:  # which is quicker to see than to plan
            return Missing({}, 0)
        return missing_replicas(self._wanted.experts, hosts, coverage)

    def _emptied(self) -> frozenset[str]:
        operation = self._operations.current
        return frozenset() if operation is None else frozenset(operation.goal.emptied)

    def _cover(self, loads: asyncio.TaskGroup, hosts: Sequence[Host], now: float) -> float | None:
        """Load further replicas where there are too few; how long the grace lasts, if it does."""
        missing = self._missing(hosts, self._wanted.coverage)
        if self._is_starting and self._requires_coverage and missing.num_uncovered:
            raise BadState(_uncovered(missing.num_uncovered, self._wanted.coverage))
        if not missing.loads:
            self._uncovered_since = None
            return None
        if self._uncovered_since is None:
            self._uncovered_since = now
        grace = self._waits.coverage_grace_seconds
        left = 0.0 if self._is_starting else self._uncovered_since + grace - now
        if left > 0:
            return left
        self._load(loads, missing, in_background=not self._is_starting)
        return None

    def _load(self, loads: asyncio.TaskGroup, missing: Missing, *, in_background: bool) -> None:
        for peer in self._members.peers:
            lacking = missing.loads.get(peer.address)
            if lacking and self._transfers.on(peer.address) is None:
                experts = self._next_batch(lacking, self._survey.expert_bytes)
                logger.debug("loading %d experts on %s", len(experts), peer.address)
                task = self._transfers.load(loads, peer, experts, in_background=in_background)
                if self._is_starting:
                    loads.create_task(self._check_start(task, peer))

    async def _check_start(self, load: "asyncio.Task[TransferResult]", peer: ExpertPeer) -> None:
        """A service that cannot load its experts ends the start: nothing that it waits for would
        mend that.
        """
        error = await load
        if isinstance(error, BadState) and self._is_starting and not peer.is_draining:
            raise BadState(
                f"expert service {peer.address} cannot load its experts: {error}"
            ) from error

    def _note_shortage(self, missing: Missing, hosts: Sequence[Host]) -> None:
        if (
            missing.shortage is None
            or any(host.retiring for host in hosts)
            or self._can_trim(hosts)
        ):
            return  # there is memory enough, or soon will be
        has_trouble = any(
            peer.is_suspect or self._survey.trouble(peer) for peer in self._members.peers
        )
        if (
            self._is_starting and hosts and not has_trouble
        ):  # which ends the start by itself, where it is known why
            raise missing.shortage
        amiss = [
            reason
            for peer in self._members.peers
            if (reason := self._survey.amiss(peer)) is not None
        ]
        shortage = str(missing.shortage) if hosts else "no expert service is connected"
        self._log_once(f"experts stay unhosted: {'; '.join(amiss) or shortage}")

    def _tidy(self, hosts: Sequence[Host]) -> float | None:
        """Begin an operation of the router's own where there is reason for one; when to try again,
        if it is refused.
        """
        goal: Goal | None = None
        try:
            goal = self._reason(hosts)
            if goal is not None:
                self._num_own += 1
                now = asyncio.get_running_loop().time()
                self._own_not_before = now + self._waits.own_retry_seconds
                self._operations.begin(
                    f"{self._name}-{self._num_own}", goal, force=True, is_own=True
                )
        except ServingError as error:
            self._log_once(f"{goal or 'an even placement'} cannot be brought about: {error}")
            return self._waits.own_retry_seconds
        return None

    def _reason(self, hosts: Sequence[Host]) -> Goal | None:
        leaving = {host.address for host in hosts if host.hosted or host.refused}
        for peer in self._members.peers:
            if peer.is_draining and peer.address in leaving:
                return Without(peer.address)
        if self._gains_from_new(hosts):
            return Even()
        if self._missing(hosts, self._wanted.coverage).num_uncovered and self._can_trim(hosts):
            return Trimmed()
        return None

    def _can_trim(self, hosts: Sequence[Host]) -> bool:
        """Whether there are replicas that could be let go for what is missing."""
        trimmed = Trimmed().target(hosts, self._wanted)
        return any(host.hosted - trimmed[host.address] for host in hosts)

    def _gains_from_new(self, hosts: Sequence[Host]) -> bool:
        """Whether a service that has not had its share would get more if experts were spread
        evenly.
        """
        new = {peer.address for peer in self._members.peers if self._survey.is_new(peer)}
        if not new or not all(host.takes for host in hosts):
            return False
        target = Even().target(hosts, self._wanted)
        if any(target[host.address] - host.hosted for host in hosts if host.address in new):
            return True
        self._survey.note_shared()
        return False

    def _log_once(self, message: str) -> None:
        """Log it, unless it was the last message."""
        if message != self._last_message:
            self._last_message = message
            logger.error("%s", message)


def _uncovered(num_experts: int, coverage: int) -> str:
    return (
        f"coverage is {coverage}, and {num_experts} experts would be on fewer services: "
        "raise expert_memory, add services, or leave require_coverage off"
    )
