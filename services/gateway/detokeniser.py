"""Turns token ids into text as they arrive, never cutting a character in two."""

from collections.abc import Callable, Iterable, Sequence

Decode = Callable[[Sequence[int]], str]

# What decoders put where bytes are no character, or not yet.
REPLACEMENT = "\ufffd"


class Detokeniser:
    """Text of a growing list of tokens; what is returned is never taken back.

    Only a short window is decoded again: from the start of the piece before the unfinished one, so that
    decoders that treat the first token of a text differently (a stripped space) see a token before the new
    ones. The technique is known from Hugging Face's text-generation-inference. `is_visible` says whether a
    token takes part in the text: decoders leave out special and unknown ones, which would only make the window
    longer.
    """

    def __init__(self, decode: Decode, is_visible: Callable[[int], bool]) -> None:
        self._decode = decode
        self._is_visible = is_visible
        self._window: list[int] = []
        # Tokens of the window whose text was returned already.
        self._num_returned = 0

    def feed(self, token_ids: Iterable[int]) -> str:
        """Add tokens; the text that they complete, empty while a character lacks bytes."""
        return "".join([self._feed_one(token_id) for token_id in token_ids if self._is_visible(token_id)])

    def flush(self) -> str:
        """End the text; what is left of it, with U+FFFD for a character that was never completed."""
        text = self._new_text()
        self._num_returned = len(self._window)
        return text

    def _feed_one(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._new_text()
        if not text or text.endswith(REPLACEMENT):
            return ""
        del self._window[: self._num_returned]
        self._num_returned = len(self._window)
        return text

    def _new_text(self) -> str:
        before = self._decode(self._window[: self._num_returned])
        return self._decode(self._window)[len(before) :]
