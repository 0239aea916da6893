"""What a strategy is: it changes a draft, and says why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from services.router.planning.draft import Draft, Replica


@dataclass(frozen=True)
class ReplicaReason:
    """Why a replica is loaded: what a mean step is expected to gain by it, and a sentence."""

    gain_nanos: float
    why: str


@dataclass(frozen=True)
class Proposal:
    """What is to be said about the changes of a draft: of some replicas apart, and why no more is
    changed.
    """

    reasons: Mapping[Replica, ReplicaReason]
    summary: str


class Strategy(Protocol):
    """Decides who is to host what."""

    def propose(self, draft: Draft) -> Proposal:
        """Change the draft, which has every expert as often as is asked for, or as there
        is memory.
        """
        ...
