"""What ties a gateway's text to a router's model: a digest of the files that both of them read."""

import hashlib
import json
from pathlib import Path

DIGEST_BYTES = 16


def text_digest(directory: Path) -> str:
    """BLAKE2b-128, in hex, of a checkpoint's config.json, however it is laid out, and tokenizer.json.

    Empty where one of them is missing or cannot be read: nothing can be said of the text then.
    """
    try:
        config = json.loads((directory / "config.json").read_bytes())
        tokenizer = (directory / "tokenizer.json").read_bytes()
    except (OSError, ValueError):
        return ""
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=DIGEST_BYTES)
    digest.update(tokenizer)
    return digest.hexdigest()
