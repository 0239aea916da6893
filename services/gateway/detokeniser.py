"""Turns token ids into text as they arrive, never cutting a character in two."""

from collections.abc import Iterable, Sequence
from itertools import islice

from services.gateway.token_texts import REPLACEMENT, Decode, TokenTexts

# A character has at most four bytes and a token at least one: an unfinished character shows as no
# more than this.
MAX_UNFINISHED = 3
# Tokens of the prompt that say how the continuation reads: several characters, even with a token
# for each byte.
PROMPT_WINDOW = 16
# Tokens in a row that make no whole character, which is no text: at more than the first, the second
# are kept.
MAX_PENDING, KEPT_PENDING = 16, 12


class Detokeniser:
    """Text that continues a prompt, of a growing list of tokens; what is returned is never taken
    back.

    Prompt and text put together read as all tokens decoded at once. Of a character that the
    prompt's tokens leave unfinished nothing counts as the prompt's: the text begins with the whole
    of it.

    Decoders treat the first token of a text differently (a stripped space), so new tokens are
    decoded behind those of the piece before. The technique is known from Hugging Face's
    text-generation-inference. Tokens that are not visible would only make that window longer.
    """

    def __init__(self, texts: TokenTexts, prompt: Sequence[int] = ()) -> None:
        self._texts = texts
        self._decode = texts.decode
        visible = [*islice(filter(texts.is_visible, reversed(prompt)), PROMPT_WINDOW)][::-1]
        is_plain = bool(visible) and texts.plain_text(visible[-2:-1], visible[-1]) is not None
        # The tokens before the pending ones, which end where a character does.
        self._context, self._pending = (
            (visible[-1:], []) if is_plain else _split_at_a_character(texts.decode, visible)
        )
        # The text of those that end within a character, or may, and what of it was returned or is
        # the prompt's.
        self._text = self._shown = self._pending_text() if self._pending else ""

    def feed(self, token_ids: Iterable[int]) -> str:
        """Add tokens; the text that they complete, empty while a character lacks bytes."""
        text = ""
        for token_id in token_ids:  # one, mostly
            text += self._feed_one(token_id)
        return text

    def flush(self) -> str:
        """End the text; what is left of it, with U+FFFD for a character that was never
        completed.
        """
        return self._show(len(self._text))

    def _feed_one(self, token_id: int) -> str:
        if not self._pending:
            plain = self._texts.plain_text(self._context, token_id)
            if plain is not None:
                self._context = [token_id]
                return plain
        return self._look_closer(token_id) if self._texts.is_visible(token_id) else ""

    def _look_closer(self, token_id: int) -> str:
        before = self._text
        self._pending.append(token_id)
        self._text = self._pending_text()
        if _ends_a_character(self._text, before):
            new = self._show(len(self._text))
            self._move_on()
            return new
        num_unfinished = len(self._text) - len(self._text.rstrip(REPLACEMENT))
        new = self._show(len(self._text) - min(num_unfinished, MAX_UNFINISHED))
        if len(self._pending) > MAX_PENDING:
            self._shorten()
        return new

    def _show(self, end: int) -> str:
        # Less than everything that was shown agrees where the prompt's unfinished character is
        # whole now.
        start = _num_alike(self._shown, self._text)
        if end > start:
            self._shown = self._text[:end]
        return self._text[start:end]

    def _pending_text(self) -> str:
        whole = self._decode([*self._context, *self._pending])
        context_text = self._decode(self._context)
        text = whole.removeprefix(context_text)
        if REPLACEMENT not in text:
            return text
        # Some decoders give up a row of bytes as a whole: an unfinished character spoils those
        # before it.
        alone = self._decode(self._pending)
        is_spoilt = whole.count(REPLACEMENT) > context_text.count(REPLACEMENT) + alone.count(
            REPLACEMENT
        )
        return alone if is_spoilt else text

    def _move_on(self) -> None:
        # Tokens without text, such as a space that is stripped, change nothing for those after
        # them.
        before = [] if self._text else self._context[-PROMPT_WINDOW:]
        self._context, self._pending = [*before, *self._pending], []
        self._text = self._shown = ""

    def _shorten(self) -> None:
        num_held = len(self._text) - len(self._shown)
        self._context, self._pending = self._pending[:-KEPT_PENDING], self._pending[-KEPT_PENDING:]
        self._text = self._pending_text()
        self._shown = self._text[: len(self._text) - num_held]


def _split_at_a_character(decode: Decode, tokens: Sequence[int]) -> tuple[list[int], list[int]]:
    """The tokens up to the last end of a character, and those of the unfinished one after it, if
    there is one.
    """
    # A window on a longer prompt may begin within a character.
    max_skipped = MAX_UNFINISHED if len(tokens) == PROMPT_WINDOW else 0
    for num_unfinished in range(min(MAX_UNFINISHED, len(tokens)) + 1):
        end = len(tokens) - num_unfinished
        for start in range(max_skipped + 1):
            text = decode(tokens[start:end])
            begins_well = not max_skipped or not text.startswith(REPLACEMENT)
            if begins_well and _ends_a_character(text, decode(tokens[start : end - 1])):
                return [*tokens[start:end]], [*tokens[end:]]
    return [], [*tokens]


def _ends_a_character(text: str, before: str) -> bool:
    """Whether the last token ended one; `before` is the text without that token.

    A text that got shorter ends with a U+FFFD that is meant: its bytes were shown as one each.
    """
    return not text.endswith(REPLACEMENT) or len(text) < len(before)


def _num_alike(one: str, other: str) -> int:
    differing = (
        index for index, (left, right) in enumerate(zip(one, other, strict=False)) if left != right
    )
    return next(differing, min(len(one), len(other)))
