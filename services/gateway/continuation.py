"""The text of one continuation: tokens in, text to show out, ended by stop tokens and
stop strings.
"""

from collections.abc import Collection, Sequence

from services.gateway.detokeniser import Detokeniser
from services.gateway.stop_strings import StopStrings


class Continuation:
    """Token ids become text; the text of stop tokens and of stop strings is left out."""

    def __init__(
        self, detokeniser: Detokeniser, stop_token_ids: Collection[int], stop_strings: Sequence[str]
    ) -> None:
        self._detokeniser = detokeniser
        self._stop_token_ids = frozenset(stop_token_ids)
        self._stop_strings = StopStrings(stop_strings)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text, once one did."""
        return self._stop_strings.matched

    def feed(self, token_ids: Sequence[int]) -> str:
        """Add tokens; the text that may be shown now."""
        if not self._stop_token_ids.isdisjoint(token_ids):
            token_ids = [each for each in token_ids if each not in self._stop_token_ids]
        return self._stop_strings.feed(self._detokeniser.feed(token_ids))

    def finish(self) -> str:
        """No more tokens come: the rest of the text, an unfinished character and held back text
        included.
        """
        return self._stop_strings.feed(self._detokeniser.flush()) + self._stop_strings.flush()
