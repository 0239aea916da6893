"""One expert service as planning sees it: what it hosts, and what it has room for."""

from collections.abc import Set
from dataclasses import dataclass

from services.wire.expert_key import ExpertKey


@dataclass(frozen=True)
class Host:
    """One service that is there, as far as hosting is concerned. Every expert takes one slot.

    Its last free slot is the transfer slot, which moves need: plans leave it free, unless an expert
    had no home else or the memory holds the whole model. `loading` and `retiring` experts take
    slots too; loading ones are expected to become ready. `refused` ones take slots and count for
    nothing else: they are not what the model's experts were when the router started. `takes` is
    whether experts may be given to it now; what it hosts counts either way. One that `is_draining`
    serves what it hosts, but that counts for nothing: it is to be empty in the end and is given no
    more.
    """

    address: str
    num_slots: int
    hosted: Set[ExpertKey] = frozenset()
    loading: Set[ExpertKey] = frozenset()
    retiring: Set[ExpertKey] = frozenset()
    refused: Set[ExpertKey] = frozenset()
    is_draining: bool = False
    takes: bool = True

    @property
    def num_free(self) -> int:
        """Slots that no expert takes."""
        return (
            self.num_slots
            - len(self.hosted)
            - len(self.loading)
            - len(self.retiring)
            - len(self.refused)
        )
