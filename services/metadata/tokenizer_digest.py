"""What ties a gateway's text to a router's model: a digest of the tokenizer that both of
them have.
"""

import hashlib
from pathlib import Path

DIGEST_BYTES = 16


def tokenizer_digest(directory: Path) -> str:
    """BLAKE2b-128, in hex, of a checkpoint's tokenizer.json.

    Empty where that is missing or cannot be read: nothing can be said of the text then.
    """
    try:
        content = (directory / "tokenizer.json").read_bytes()
    except OSError:
        return ""
    return digest_of(content)


def digest_of(content: bytes) -> str:
    """The same of what a tokenizer.json holds."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
