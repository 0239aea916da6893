"""The text of one continuation: tokens in, text to show out, ended by stop tokens and
stop strings.
"""

from collections.abc import Collection, Iterable, Sequence

from services.gateway.detokeniser import Detokeniser
from services.gateway.stop_strings import StopStrings


class Continuation:
    """Token ids become text; the text of stop tokens and of stop strings is left out."""

    def __init__(
        self, detokeniser: Detokeniser, stop_token_ids: Collection[int], stop_strings: Sequence[str]
    ) -> None:
        self._detokeniser = detokeniser
        self._stop_token_ids = stop_token_ids
        self._stop_strings = StopStrings(stop_strings)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text, once one did."""
        return self._stop_strings.matched

    def feed(self, token_ids: Iterable[int]) -> str:
        """Add tokens; the text that may be shown now."""
        shown = [token_id for token_id in token_ids if token_id not in self._stop_token_ids]
        return self._stop_strings.feed(self._detokeniser.feed(shown))

    def finish(self) -> str:
        """No more tokens come: the rest of the text, an unfinished character and held back text
        included.
        """
        return self._stop_strings.feed(self._detokeniser.flush()) + self._stop_strings.flush()
