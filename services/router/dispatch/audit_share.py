"""Which frames are computed twice: policy without I/O."""

import secrets
from collections.abc import Sequence


class AuditShare:
    """Of each service's frames one in every so many, at a place that nobody can guess: of whom all
    answers are wrong, one is looked at in every such row of frames. None with a share of 0.
    """

    def __init__(self, share: float) -> None:
        self._every = max(1, round(1 / share)) if share > 0 else 0
        self._counts: dict[str, tuple[int, int]] = {}  # frames of the row, and the chosen one

    def chosen(self, addresses: Sequence[str]) -> list[int]:
        """Which of a layer's frames, that services with these addresses answered, are looked at."""
        if not self._every:
            return []
        return [index for index, address in enumerate(addresses) if self._takes(address)]

    def _takes(self, address: str) -> bool:
        count, place = self._counts.get(address, (0, 0))
        if count == 0:
            place = secrets.randbelow(self._every)
        self._counts[address] = (count + 1) % self._every, place
        return count == place
