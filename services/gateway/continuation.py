"""The text of one continuation: tokens in, text to show out, ended by stop tokens and
stop strings.
"""

from collections.abc import Collection, Sequence

from services.gateway.detokeniser import Detokeniser
from services.gateway.stop_strings import StopStrings


class Continuation:
    """Token ids become text; the text of stop tokens is left out, and that of a stop string but
    where it is to be shown. No stop string ends it within its first `min_new_tokens`.
    """

    def __init__(
        self,
        detokeniser: Detokeniser,
        stop_token_ids: Collection[int],
        stop_strings: Sequence[str],
        *,
        shows_stop_string: bool = False,
        min_new_tokens: int = 0,
    ) -> None:
        self._detokeniser = detokeniser
        self._stop_token_ids = frozenset(stop_token_ids)
        self._stop_strings = StopStrings(stop_strings, are_shown=shows_stop_string)
        self._num_withheld = min_new_tokens  # tokens in whose text no stop string ends

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text, once one did."""
        return self._stop_strings.matched

    def feed(self, token_ids: Sequence[int]) -> str:
        """Add tokens; the text that may be shown now."""
        if self._num_withheld > 0 and token_ids:
            early, token_ids = token_ids[: self._num_withheld], token_ids[self._num_withheld :]
            self._num_withheld -= len(early)
            text = self._stop_strings.feed(self._text_of(early), may_end=False)
            return text + self.feed(token_ids)
        return self._stop_strings.feed(self._text_of(token_ids))

    def _text_of(self, token_ids: Sequence[int]) -> str:
        if not self._stop_token_ids.isdisjoint(token_ids):
            token_ids = [each for each in token_ids if each not in self._stop_token_ids]
        return self._detokeniser.feed(token_ids)

    def finish(self) -> str:
        """No more tokens come: the rest of the text, an unfinished character and held back text
        included.
        """
        return self._stop_strings.feed(self._detokeniser.flush()) + self._stop_strings.flush()
