"""What the services host and can take, as plans are made of it."""

import time
from collections.abc import Callable, Mapping, Set

from moesaic.v1 import expert_pb2
from services.router.hosting.contents import Contents
from services.router.hosting.members import Members
from services.router.hosting.transfers import Transfer, Transfers
from services.router.hosting.troubles import Troubles
from services.router.hosting.waits import WAITS, Waits
from services.router.peers.peer import ExpertPeer
from services.router.planning.host import Host
from services.wire.errors import BadState
from services.wire.expert_key import ExpertKey

_States = Mapping[int, frozenset[ExpertKey]]  # experts by `ExpertState`


class Survey:
    """Reads the hosting of the services, with what is under way on them, by what experts are and
    who has trouble.

    A service that was emptied stays empty until it is started again: `keep_empty`.
    """

    def __init__(
        self,
        members: Members,
        transfers: Transfers,
        contents: Contents,
        troubles: Troubles,
        *,
        waits: Waits = WAITS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = members
        self._transfers = transfers
        self._contents = contents
        self._troubles = troubles
        self._grace_seconds = waits.suspect_grace_seconds
        self._now = now
        self._suspect_since: dict[str, float] = {}
        self._kept_empty: dict[str, str] = {}  # instances by address
        self._read: dict[
            str, tuple[tuple[str, int], _States]
        ] = {}  # what was read, of which hosting, by address
        self._seen: dict[str, str] = {}  # instances by address
        self._shared: dict[str, str] = {}  # instances that have had their share, by address

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert of the model, by what the services say; 0 while none is there."""
        descriptions = (peer.description for peer in self._members.peers)
        return max(
            (max(one.expert_bytes, default=0) for one in descriptions if one is not None), default=0
        )

    def observe(self) -> None:
        """Take in a change of hosting, liveness or suspicion."""
        now = self._now()
        suspect = {peer.address for peer in self._members.peers if peer.is_live and peer.is_suspect}
        self._suspect_since = {
            address: self._suspect_since.get(address, now) for address in suspect
        }
        for peer in self._members.peers:
            if peer.hosting.instance and peer.hosting.instance != self._seen.get(peer.address):
                self._seen[peer.address] = peer.hosting.instance
                if peer.hosting.experts:  # it brings what it was told to host
                    self._shared[peer.address] = peer.hosting.instance

    def note_shared(self) -> None:
        """Every service that takes experts has its share by now, as far as they are to be spread
        evenly.
        """
        self._shared |= {
            peer.address: peer.hosting.instance
            for peer in self._members.peers
            if peer.is_usable and not self.is_draining(peer)
        }

    def keep_empty(self, address: str) -> None:
        """Give a service no experts until it is started again."""
        self._kept_empty |= {
            peer.address: peer.hosting.instance
            for peer in self._members.peers
            if peer.address == address
        }

    def is_draining(self, peer: ExpertPeer) -> bool:
        """Whether a service is to host nothing, by its own word or an operator's."""
        return peer.is_draining or (
            peer.address in self._kept_empty
            and self._kept_empty[peer.address] == peer.hosting.instance
        )

    def is_new(self, peer: ExpertPeer) -> bool:
        """Whether a service can take experts, came with none when it was started, and has not had
        its share of them since. What it was given in need, since nobody else had it, is no share.
        """
        return (
            peer.is_usable
            and not self.is_draining(peer)
            and self._shared.get(peer.address) != peer.hosting.instance
        )

    def hosts(self, draining: Set[str] = frozenset()) -> list[Host]:
        """The services that are there, those at the addresses in `draining` as if they were to be
        empty.
        """
        return [
            self._host(peer, peer.address in draining or self.is_draining(peer))
            for peer in self._members.peers
            if peer.is_live and not self._is_given_up(peer)
        ]

    def replicas(self, peer: ExpertPeer) -> Set[ExpertKey]:
        """What a service has ready, as far as that is the checkpoint's."""
        ready = self._states(peer).get(expert_pb2.EXPERT_STATE_READY, frozenset())
        return ready - self._contents.refused(peer)

    def loading(self, peer: ExpertPeer) -> frozenset[ExpertKey]:
        """What a service reads at present."""
        return self._states(peer).get(expert_pb2.EXPERT_STATE_LOADING, frozenset())

    def trouble(self, peer: ExpertPeer) -> str | None:
        """Why a service is given no experts though it answers, where that is so: its checkpoint has
        changed, say.
        """
        return self._contents.refusal(peer) or self._troubles.reason(
            peer.address, peer.hosting.instance
        )

    def amiss(self, peer: ExpertPeer) -> str | None:
        """Why a service cannot be used, or not to load experts, for a reason that does not pass by
        itself.
        """
        if peer.is_live:
            return self.trouble(peer)
        return str(peer.refusal) if isinstance(peer.refusal, BadState) else None

    def seconds_until_given_up(self) -> float | None:
        """When the next suspect service is planned without, if nothing changes before."""
        ends = [since + self._grace_seconds - self._now() for since in self._suspect_since.values()]
        return min((end for end in ends if end > 0), default=None)

    def seconds_until_asked_again(self) -> float | None:
        """When the next service that had trouble may be given experts again, if nothing changes
        before.
        """
        return self._troubles.seconds_left()

    def _is_given_up(self, peer: ExpertPeer) -> bool:
        since = self._suspect_since.get(peer.address)
        return since is not None and self._now() >= since + self._grace_seconds

    def _host(self, peer: ExpertPeer, is_draining: bool) -> Host:
        description = peer.description
        assert description is not None, "a live service has been described"
        # More than the whole model is of no use, and what a service says may be more than there are
        # numbers for.
        most_free = len(description.moe_layers) * description.num_experts
        transfer = self._transfers.on(peer.address) or Transfer()
        by_state = self._states(peer)
        ready = by_state.get(expert_pb2.EXPERT_STATE_READY, frozenset())
        loading = by_state.get(expert_pb2.EXPERT_STATE_LOADING, frozenset())
        retiring = by_state.get(expert_pb2.EXPERT_STATE_RETIRING, frozenset()) | (
            ready & transfer.retiring
        )
        refused = self._contents.refused(peer) - retiring
        return Host(
            peer.address,
            len(peer.hosting.experts)
            + min(most_free, peer.hosting.free_memory_bytes // max(description.expert_bytes)),
            hosted=ready - retiring - refused,
            loading=loading | (transfer.loading - ready - retiring),
            retiring=retiring,
            refused=refused,
            is_draining=is_draining,
            takes=not peer.is_suspect and self.trouble(peer) is None,
        )

    def _states(self, peer: ExpertPeer) -> _States:
        version = peer.hosting.instance, peer.hosting.generation
        known = self._read.get(peer.address)
        if known is None or known[0] != version:
            known = self._read[peer.address] = version, _by_state(peer.hosting)
        return known[1]


def _by_state(hosting: expert_pb2.WatchHostingResponse) -> _States:
    by_state: dict[int, set[ExpertKey]] = {}
    for hosted in hosting.experts:
        by_state.setdefault(hosted.state, set()).add(ExpertKey(hosted.layer, hosted.expert))
    return {state: frozenset(experts) for state, experts in by_state.items()}
