"""Prompts of real text: windows of a novel out of the archive that the shipped model was trained
with.
"""

import tarfile
from collections.abc import Sequence

from tokenizers import Tokenizer

from bench.harness.failure import BenchFailed
from services.runtime.embedded_model import EMBEDDED_MODEL
from train.corpus import ARCHIVE, SEPARATOR

DOMAIN = "austen.txt"
# Far more than the most prompts take.
NUM_CHARACTERS = 200_000

Prompts = Sequence[Sequence[int]]  # tokens of each


def text_prompts(count: int, num_tokens: int) -> list[list[int]]:
    """So many different prompts of so many tokens each, by the shipped model's tokenizer.

    Raises BenchFailed when the archive is missing or too short.
    """
    ids = (
        Tokenizer.from_file(str(EMBEDDED_MODEL / "tokenizer.json"))
        .encode(_text(), add_special_tokens=False)
        .ids
    )
    if len(ids) < count * num_tokens:
        raise BenchFailed(
            f"{DOMAIN} gives {len(ids)} tokens; {count} prompts of {num_tokens} were asked for"
        )
    return [ids[start : start + num_tokens] for start in range(0, count * num_tokens, num_tokens)]


def _text() -> str:
    try:
        with tarfile.open(ARCHIVE, "r:xz") as archive:
            member = archive.extractfile(DOMAIN)
            assert member is not None, "it is a file"
            return member.read(NUM_CHARACTERS).decode(errors="ignore").replace(SEPARATOR, "\n")
    except (OSError, KeyError, tarfile.TarError) as error:
        raise BenchFailed(
            f"the prompts come from {DOMAIN} in {ARCHIVE}, which cannot be read: {error}"
        ) from error
