"""What single tokens are called where their probabilities are told."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from tokenizers import Tokenizer, decoders

MAX_REMEMBERED = 1 << 15
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
METASPACE = "\u2581"


class TokenName(NamedTuple):
    """A token's text by itself, with U+FFFD for what is no character, and its bytes."""

    text: str
    bytes: Sequence[int]


class TokenNames:
    """Of one tokenizer. A token's text depends on no other token, and is shown of special ones,
    too.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {
            token_id: token.content
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
        }
        self._of_letters = (
            _bytes_of_letters() if isinstance(tokenizer.decoder, decoders.ByteLevel) else None
        )
        self.of = lru_cache(MAX_REMEMBERED)(self._named)

    def _named(self, token_id: int) -> TokenName:
        added = self._special.get(token_id)
        token = self._tokenizer.id_to_token(token_id) or "" if added is None else added
        data = token.encode() if added is not None else self._bytes(token)
        return TokenName(data.decode(errors="replace"), tuple(data))

    def _bytes(self, token: str) -> bytes:
        if self._of_letters is not None:
            letters = self._of_letters
            return b"".join(
                bytes([letters[each]]) if each in letters else each.encode() for each in token
            )
        byte = _BYTE.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.replace(METASPACE, " ").encode()


def _bytes_of_letters() -> dict[str, int]:
    """The letter by which GPT-2's vocabulary writes each byte: itself where it can be seen, else
    the next one from 256 on.
    """
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in seen}
    unseen = (byte for byte in range(256) if byte not in set(seen))
    return letters | {chr(256 + index): byte for index, byte in enumerate(unseen)}
