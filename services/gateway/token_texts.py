"""What tokens read as, remembered for all continuations of a checkpoint: decoding again costs more
than all else that is done for a token.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Self

from tokenizers import Tokenizer, decoders

Decode = Callable[[Sequence[int]], str]

# What decoders put where bytes are no character, or not yet.
REPLACEMENT = "\ufffd"

# A few hundred bytes each.
MAX_REMEMBERED = 1 << 15


class TokenTexts:
    """A decoder, and the texts of the tokens that it was asked for last.

    `is_visible` says whether a token takes part in a text: decoders leave out special and unknown
    ones. `is_by_token` says that a text is the bytes of its tokens, one after the other; other
    decoders treat a token by what stands before it.
    """

    def __init__(
        self, decode: Decode, is_visible: Callable[[int], bool], *, is_by_token: bool = False
    ) -> None:
        self.decode = decode
        self.is_visible = lru_cache(MAX_REMEMBERED)(is_visible)
        self._is_by_token = is_by_token
        self._remembered = lru_cache(MAX_REMEMBERED)(self._plain_text)

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, keep_special_tokens: bool = False) -> Self:
        """As a tokenizer decodes, special tokens left out or not."""
        hidden_ids = frozenset(
            token_id
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
            if token.special and not keep_special_tokens
        )

        def decode(token_ids: Sequence[int]) -> str:
            text: str = tokenizer.decode(token_ids, skip_special_tokens=not keep_special_tokens)
            return text

        def is_visible(token_id: int) -> bool:
            return token_id not in hidden_ids and tokenizer.id_to_token(token_id) is not None

        is_by_token = isinstance(tokenizer.decoder, decoders.ByteLevel)
        return cls(decode, is_visible, is_by_token=is_by_token)

    def plain_text(self, context: Sequence[int], token_id: int) -> str | None:
        """What the token adds to the text of `context`, which ends where a character does.

        None where that takes a closer look: when the token is not visible, adds nothing, or has
        bytes that are no character.
        """
        if self._is_by_token:
            return self._remembered(token_id)
        return self._remembered(token_id, context[0]) if len(context) == 1 else None

    def _plain_text(self, token_id: int, *context: int) -> str | None:
        if not self.is_visible(token_id):
            return None
        text = self.decode([*context, token_id]).removeprefix(self.decode(context))
        return text if text and REPLACEMENT not in text else None
