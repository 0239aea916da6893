"""The expert services together: found, kept connected, given their experts, and laid out as a
placement.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence, Set

from services.model.checkpoint import Checkpoint
from services.model.hash_cache import HashCache
from services.router.dispatch.awaited import Awaited
from services.router.dispatch.placement import Placement, Unhosted
from services.router.hosting.contents import Contents
from services.router.hosting.keeper import Keeper
from services.router.hosting.layout import HostingLayout, LaidOut
from services.router.hosting.lost import Lost
from services.router.hosting.members import Members, Resolve
from services.router.hosting.mover import Mover
from services.router.hosting.operations import Operation, Operations
from services.router.hosting.own_contents import OwnContents
from services.router.hosting.planner_choice import PlannerChoice
from services.router.hosting.survey import Survey
from services.router.hosting.transfers import Transfers
from services.router.hosting.troubles import Troubles
from services.router.hosting.waits import WAITS, Waits
from services.router.peers.absence import Attempts
from services.router.peers.expected import Expected
from services.router.peers.patience import PATIENCE
from services.router.peers.peer import ExpertPeer
from services.router.peers.renewal_turns import RenewalTurns
from services.router.planning.goals import Goal, WantedHosting
from services.runtime.channels import resolve
from services.runtime.notice import Notice
from services.runtime.tls_files import TlsFiles
from services.wire.errors import BadState
from services.wire.expert_key import ExpertKey

logger = logging.getLogger(__name__)


class Fleet:
    """Every expert service that the router knows. Truth about hosting lives in the services; the
    fleet watches.

    `place` is called with a new placement whenever hosting changes; the dispatcher uses it from the
    next layer on. Each expert is kept ready on `coverage` services; with `requires_coverage` a
    start that cannot reach that is refused. What requests wait for by `awaited` is loaded first.
    Of several fleets, each with a `name`, one plans what need not be done at once.
    With `checks_contents` experts are compared with the checkpoint's; `hashes` may know theirs.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        targets: Sequence[str],
        expected: Expected,
        *,
        num_lanes: int,
        frame_floor_seconds: float,
        place: Callable[[Placement], None],
        name: str,
        coverage: int = 1,
        requires_coverage: bool = False,
        awaited: Awaited | None = None,
        checks_contents: bool = True,
        hashes: HashCache | None = None,
        look_up: Resolve = resolve,
        waits: Waits = WAITS,
        tls: TlsFiles | None = None,
    ) -> None:
        layers, num_experts = checkpoint.moe_layers, checkpoint.num_experts
        experts = [ExpertKey(layer, expert) for layer in layers for expert in range(num_experts)]
        wanted = self.wanted = WantedHosting(experts, coverage)
        self._place = place
        self._batch_invariant = expected.batch_invariant
        self._peers_changed = asyncio.Event()
        changed = self.changed = Notice()  # the placement, or what is under way
        self._least_replicas = coverage if requires_coverage else 1
        self._complete = asyncio.Event()
        contents, on_news = Contents(), self._peers_changed.set
        own = OwnContents(checkpoint, experts, contents, hashes, on_news)
        self._contents, self._own = contents, own if checks_contents else None
        self._layout = HostingLayout(layers, num_experts, contents, self._refuse_claim)
        self.laid: LaidOut = self._layout.lay_out(())

        make = _maker_of_peers(expected, num_lanes, frame_floor_seconds, on_news, tls)
        self.members = Members(targets, make, on_news, look_up=look_up, waits=waits)
        self._lost = lost = Lost(awaited or Awaited())
        self._troubles = troubles = Troubles(on_news, waits=waits)
        on_load = lost.note_read, lost.note_loaded
        self.transfers = Transfers(changed.send, contents, troubles, *on_load, waits=waits)
        self.survey = Survey(self.members, self.transfers, contents, troubles, waits=waits)
        mover = Mover(self.survey, self.transfers, wanted, self.members.peer, changed, waits=waits)
        self.operations = Operations(mover.carry_out, mover.check, changed.send)
        self._choice = PlannerChoice(name, lambda: self.members.peers, changed, waits=waits)
        self._keeper = self._new_keeper(requires_coverage, waits)

    @property
    def peers(self) -> Sequence[ExpertPeer]:
        """The services, ordered by address."""
        return self.members.peers

    def _new_keeper(self, requires_coverage: bool, waits: Waits) -> Keeper:
        return Keeper(
            *(self.survey, self.transfers, self.operations),
            *(self.wanted, self.members, self.changed),
            self._num_below,
            self._lost.next_batch,
            lambda: self._choice.is_ours,
            requires_coverage=requires_coverage,
            waits=waits,
        )

    async def run(self, wait_seconds: float) -> None:
        """Keep the services connected and every expert hosted, until cancelled.

        Waits up to `wait_seconds` for every service before it distributes experts over those that
        are there. Raises Unavailable when a name stands for no address by then, Overloaded when
        what is there cannot hold the model, and BadState when it cannot read it, or two services
        claim different weights for one expert and nothing says who is right.
        """
        deadline = asyncio.get_running_loop().time() + wait_seconds
        await self.members.find(wait_seconds)
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self.members.run())
            if self._own is not None:
                loops.create_task(self._own.run())
            await self._until_all_are_live(deadline, wait_seconds)
            loops.create_task(self._keep_laid_out())
            loops.create_task(self.operations.run())
            loops.create_task(self._choice.run())
            loops.create_task(self._keeper.run())

    @property
    def is_planner(self) -> bool:
        """Whether this router, of those that share the services, moves experts by itself."""
        return self._choice.is_ours

    @property
    def is_complete(self) -> bool:
        """Whether all experts have been hosted, as at the start."""
        return self._complete.is_set()

    async def complete(self) -> None:
        """Return once every expert is ready somewhere; on as many services as are asked for, where
        that is required.
        """
        await self._complete.wait()

    def num_refused(self, peer: ExpertPeer) -> int:
        """Experts that a service hosts and that are not used: they are not the checkpoint's."""
        return len(self._contents.refused(peer))

    def compute_alike(self, one: str, other: str) -> bool:
        """Whether the services at two addresses promise the same bits for a row."""
        peers = [peer for peer in self.peers if peer.address in (one, other)]
        prints = {peer.numerics_fingerprint for peer in peers}
        return self._batch_invariant and len(peers) == 2 and len(prints) == 1 and "" not in prints

    def cancel(self, requests: Sequence[int]) -> None:
        """Tell every service that nobody waits for these requests any more."""
        for peer in self.peers:
            for stream in peer.streams:
                stream.cancel(requests)

    def change(self, name: str, goal: Goal, *, force: bool = False) -> Operation:
        """Begin an operation, or give the one of that name.

        Raises ServingError when it is refused.
        """
        if not self.is_complete:
            raise BadState("the router is starting: its experts are not all hosted yet")
        self._troubles.forget()
        operation = self.operations.begin(name, goal, force=force)
        self.survey.note_shared()  # from now on it is as it was asked for
        return operation

    async def add(self, targets: Sequence[str]) -> Sequence[str]:
        """Make services known; the addresses of all. Raises InvalidRequest or Unavailable for one
        that is none, Overloaded for too many.
        """
        await self.members.add(targets)
        return [peer.address for peer in self.peers]

    def remove(self, targets: Sequence[str]) -> Sequence[str]:
        """Forget services; the addresses of all that are left. Raises as `Members.remove` does."""
        self.members.remove(targets)
        return [peer.address for peer in self.peers]

    async def _keep_laid_out(self) -> None:
        while True:
            self._peers_changed.clear()
            self.survey.observe()
            self.laid = self._layout.lay_out(self.peers, self._unhosted)
            self._place(self.laid.placement)
            if not self._complete.is_set() and self.laid.num_below(self._least_replicas) == 0:
                logger.info(
                    "every expert is ready: %d on %d services",
                    len(self.wanted.experts),
                    len(self.peers),
                )
                self._contents.settle()
                if self._own is not None:
                    self._own.begin()
                self._keeper.note_complete()
                self._complete.set()
            self.changed.send()
            await self._peers_changed.wait()

    async def _until_all_are_live(self, deadline: float, wait_seconds: float) -> None:
        missing: list[str] = []
        try:
            async with asyncio.timeout_at(deadline):
                while (
                    absent := [
                        peer.address
                        for peer in self.peers
                        if not peer.is_live or peer.is_being_tried or peer.trust.is_quarantined
                    ]
                ) or not self.peers:
                    if absent != missing:
                        logger.info("waiting for expert services: %s", ", ".join(absent))
                    missing = absent
                    await self._peers_changed.wait()
                    self._peers_changed.clear()
        except TimeoutError:
            refusals = [str(peer.refusal) for peer in self.peers if peer.refusal is not None]
            if len(missing) == len(self.peers):
                reason = (
                    "; ".join(refusals)
                    or f"none of {', '.join(missing)} answered within {wait_seconds:g} s"
                )
                raise BadState(f"no expert service can be used: {reason}") from None
            logger.warning(
                "going on without expert services %s", "; ".join(refusals) or ", ".join(missing)
            )

    def _num_below(self, coverage: int) -> int:
        return self.laid.num_below(coverage)

    def _unhosted(self, unready: Sequence[ExpertKey]) -> Unhosted:
        """What is known of experts that nobody hosts."""
        if self._complete.is_set():
            self._lost.observe(unready)
        amiss = [self.survey.amiss(peer) for peer in self.peers]
        reasons = tuple(reason for reason in amiss if reason is not None)
        is_final = bool(reasons) and len(reasons) == len(amiss)
        loading = {
            key: peer.address for peer in self.peers if unready for key in self.survey.loading(peer)
        }
        lost = self._lost
        return Unhosted(reasons, is_final, loading, lost.num_lost, lost.num_back)

    def _refuse_claim(self, conflict: str, refused: Set[ExpertKey]) -> None:
        if self._own is not None:
            self._own.hurry(refused)
        elif not self._complete.is_set():  # nobody can say who is right
            raise BadState(conflict)
        logger.error("%s", conflict)


def _maker_of_peers(
    expected: Expected,
    num_lanes: int,
    frame_floor_seconds: float,
    on_change: Callable[[], None],
    tls: TlsFiles | None,
) -> Callable[[str], ExpertPeer]:
    """What makes peers that try services, and connect to them anew, in turn."""
    attempts, turns = Attempts(), RenewalTurns(PATIENCE.renewal_seconds)

    def make(address: str) -> ExpertPeer:
        return ExpertPeer(
            *(address, expected, num_lanes, frame_floor_seconds, on_change),
            attempts=attempts,
            renewal_turns=turns,
            tls=tls,
        )

    return make
