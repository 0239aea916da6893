"""Extracts the first senses of common words from a WordNet 3.0 dictionary into
`data/common_senses.tsv`.

Only needed to rebuild that file: WordNet's tag counts are not part of the corpus archive.
"""

import argparse
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

from train.corpus import read_domain

SENSES = Path(__file__).parent / "data" / "common_senses.tsv"
PARTS = {"1": ("noun", 5), "2": ("verb", 10), "3": ("adj", 10), "5": ("adj", 10)}
MAX_GLOSS_CHARACTERS = 90
COUNTED_SHARE = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "dictionary", type=Path, help="the folder with index.noun, data.noun and cntlist.rev"
    )
    dictionary = parser.parse_args().dictionary
    counted = _counted_words()
    rows = []
    for word, part in sorted(_common_words(dictionary / "cntlist.rev")):
        gloss = _first_gloss(dictionary, word, part)
        if gloss is not None:
            rows.append(f"{word}\t{part}\t{'counted' if word in counted else 'mass'}\t{gloss}\n")
    SENSES.write_text("".join(rows))


def _common_words(counts: Path) -> set[tuple[str, str]]:
    """Single words whose first sense was tagged often enough in WordNet's reference texts."""
    found = set()
    for line in counts.read_text().splitlines():
        key, sense, count = line.split(" ")
        word, lexical = key.split("%")
        part, least = PARTS.get(lexical[0], ("", 0))
        if part and sense == "1" and int(count) >= least and re.fullmatch("[a-z]{3,12}", word):
            found.add((word, part))
    return found


def _first_gloss(dictionary: Path, word: str, part: str) -> str | None:
    """The definition of a word's first sense, or None when it is too long or explains itself."""
    entry = _lines(dictionary / f"index.{part}").get(word)
    if entry is None:
        return None
    num_synsets = int(entry.split()[2])
    offset = entry.split()[-num_synsets]
    line = _lines(dictionary / f"data.{part}")[offset]
    gloss = re.split(r"[;:]", line.split(" | ", 1)[1])[0]
    gloss = re.sub(r"\s+", " ", re.sub(r"\([^)]*\)", "", gloss)).replace("`", "'").strip()
    is_good = (
        8 <= len(gloss) <= MAX_GLOSS_CHARACTERS and gloss.isascii() and word not in gloss.split()
    )
    return gloss if is_good and "(" not in gloss and '"' not in gloss else None


@cache
def _lines(path: Path) -> dict[str, str]:
    """The lines of a dictionary file by their first word."""
    return {line.split(" ", 1)[0]: line for line in path.read_text().splitlines()}


def _counted_words() -> set[str]:
    """Words that the corpus's prose uses with "a" or "an" often enough to be counted nouns."""
    alone: Counter[str] = Counter()
    with_article: Counter[str] = Counter()
    for domain in ("austen", "kjv", "shakespeare", "sotu"):
        words = re.findall("[a-z]+", " ".join(read_domain(domain)).lower())
        alone.update(words)
        with_article.update(word for before, word in pairwise(words) if before in ("a", "an"))
    return {
        word for word, count in with_article.items() if count >= max(2, COUNTED_SHARE * alone[word])
    }


if __name__ == "__main__":
    main()
