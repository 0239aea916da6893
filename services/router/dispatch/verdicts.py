"""What services say of pairs themselves, and when it is believed: policy without I/O."""

from collections.abc import Callable, Set
from dataclasses import dataclass

import numpy as np

from services.router.arrays import Indices, Mask
from services.router.dispatch.failure import FailedPairs, ServiceFailure


@dataclass(frozen=True, slots=True)
class Agreed:
    """Pairs of one expert that cannot be computed, since services agree on that. What `services`
    of them said was no fault of theirs; none are named where one alone could be asked.
    """

    positions: Indices
    why: str
    services: tuple[str, ...]


class Verdicts:
    """Remembers the verdicts on a layer's pairs. One is believed when a second service gives the
    same, or the same service again where no other is left.
    """

    def __init__(self, num_pairs: int) -> None:
        self._num_pairs = num_pairs
        self._said: list[tuple[ServiceFailure, Mask]] = []
        self._pairs: list[tuple[ServiceFailure, ServiceFailure, Mask]] = []

    def add(self, failed: FailedPairs) -> None:
        """Take in what an attempt left; what is no verdict is passed over."""
        failure = failed.failure
        if failure is None or not failure.verdict:
            return
        mask = np.zeros(self._num_pairs, dtype=bool)
        mask[failed.positions] = True
        for earlier, theirs in self._said:
            if earlier.verdict == failure.verdict and (mask & theirs).any():
                self._pairs.append((earlier, failure, mask & theirs))
        self._said.append((failure, mask))

    def agreed(
        self, expert: int, positions: Indices, candidates: Callable[[int], Set[str]]
    ) -> list[Agreed]:
        """Of these pairs of an expert those that a verdict is believed of; `candidates` are the
        addresses of the services that have it, those that are being tried among them.
        """
        found = []
        for first, second, mask in self._pairs:
            is_alone = first.address == second.address
            if not mask[positions].any() or (is_alone and candidates(expert) - {first.address}):
                continue
            why = f"{first.message}; {second.address} said the same"
            if is_alone:
                why = f"{first.message}; it said so twice, and no other service has the expert"
            blameless = () if is_alone else (first.address, second.address)
            found.append(Agreed(positions[mask[positions]], why, blameless))
        return found
