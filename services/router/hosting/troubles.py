"""Services that could not load experts for a reason that stays: their checkpoint's files have
changed, say.
"""

import time
from collections.abc import Callable

from services.router.hosting.waits import WAITS, Waits
from services.wire.errors import BadState


class Troubles:
    """Why services are given no experts for now, by address; `on_change` is called when another one
    has trouble.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        waits: Waits = WAITS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_change = on_change
        self._seconds = waits.trouble_seconds
        self._now = now
        self._troubles: dict[
            str, tuple[str, BadState, float]
        ] = {}  # the instance, why, and until when

    def add(self, address: str, instance: str, error: BadState) -> None:
        """A service, as it was started last, could not load experts."""
        self._troubles[address] = instance, error, self._now() + self._seconds
        self._on_change()

    def forget(self) -> None:
        """Somebody asks for a change: every service is to be tried again."""
        self._troubles.clear()

    def reason(self, address: str, instance: str) -> str | None:
        """Why a service is to be given nothing, where that is so; another start of it is another
        matter.
        """
        troubled, error, until = self._troubles.get(address, ("", None, 0.0))
        if error is None or troubled != instance or self._now() >= until:
            return None
        return f"expert service {address} cannot load experts: {error}"

    def seconds_left(self) -> float | None:
        """Until the next service may be asked again."""
        left = [until - self._now() for _, _, until in self._troubles.values()]
        return min((seconds for seconds in left if seconds > 0), default=None)
