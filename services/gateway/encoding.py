"""Text to token ids and back while the interpreter goes on: the event loop has others to serve
meanwhile.
"""

import os
from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

# Whether a call may use threads of the library's own; it reads that at each.
PARALLELISM_VARIABLE = "TOKENIZERS_PARALLELISM"


def encode(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool = True) -> Encoding:
    """As the tokenizer's own `encode`, which keeps the interpreter's lock for as long as it takes:
    a long text's is seconds. For several texts at once it lets the lock go.
    """
    (encoding,) = tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
    return encoding


def decode(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """The text of token ids, special ones included; it lets the lock go as `encode` does."""
    text: str
    (text,) = tokenizer.decode_batch([token_ids], skip_special_tokens=False)
    return text


def encode_in_own_threads() -> None:
    """Have the calling threads do the work in this process, unless the environment says else: how
    many there are, and how urgent they are, is said elsewhere.
    """
    os.environ.setdefault(PARALLELISM_VARIABLE, "false")
