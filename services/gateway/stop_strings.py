"""Ends a text at the first stop string, without letting a part of one out before."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Match:
    """A stop string that was found, and where in the text it starts."""

    stop_string: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.stop_string)


class StopStrings:
    """Passes text on but for what could be the beginning of a stop string.

    The stop string that is complete first ends the text; of two complete at once, the longer one.
    This does not depend on how the text was cut into pieces.
    """

    def __init__(self, stop_strings: Sequence[str], *, are_shown: bool = False) -> None:
        self._stop_strings = tuple(stop_strings)
        self._are_shown = are_shown
        self._longest = max((len(stop_string) for stop_string in stop_strings), default=0)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str, *, may_end: bool = True) -> str:
        """The text that may be shown now. Once a stop string has matched, nothing more is. One that
        ends within a text that may not end it does not match.
        """
        if not self._stop_strings:
            return text
        if self.matched is not None:
            return ""
        pending = self._held + text
        match = earliest(pending, self._stop_strings, len(self._held)) if may_end else None
        if match is not None:
            self.matched, self._held = match.stop_string, ""
            return pending[: match.end if self._are_shown else match.start]
        safe = len(pending) - self._num_held(pending)
        self._held = pending[safe:]
        return pending[:safe]

    def flush(self) -> str:
        """End the text: what was held back is no stop string after all."""
        held, self._held = self._held, ""
        return held

    def _num_held(self, pending: str) -> int:
        for length in range(min(self._longest - 1, len(pending)), 0, -1):
            suffix = pending[-length:]
            if any(stop_string.startswith(suffix) for stop_string in self._stop_strings):
                return length
        return 0


def earliest(text: str, stop_strings: Sequence[str], num_old: int = 0) -> Match | None:
    """The stop string that is complete first in `text`, beyond the first `num_old` characters; of
    two that end together, the longer one.
    """
    matches = [
        Match(stop_string, text.find(stop_string, max(0, num_old - len(stop_string) + 1)))
        for stop_string in stop_strings
    ]
    return min(
        (match for match in matches if match.start >= 0),
        key=lambda match: (match.end, match.start),
        default=None,
    )
