"""Writes the tokenizer and one stream of tokens per domain and split into the work folder."""

import os

os.environ["RAYON_NUM_THREADS"] = "1"  # read by tokenizers on import; keeps the merges reproducible

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
from tokenizers import Tokenizer

from train.corpus import read_domain
from train.questions import definitions, exchanges
from train.stories import StoryWriter
from train.tokenizer import END_ID, train_tokenizer

STORY_SEED = 21
NUM_STORIES = 60_000
NUM_HELD_OUT_STORIES = 600
SPLIT_SEED = 0
HELD_OUT_SHARE = 0.02
ARCHIVED = ("austen", "kjv", "shakespeare", "wordnet", "pydoc", "sqlite", "postgres", "sotu")
# Characters of each domain that the tokenizer learns its merges from.
TOKENIZER_CHARACTERS = {
    "stories": 4_000_000,
    "questions": 500_000,
    "austen": 4_000_000,
    "kjv": 2_500_000,
    "shakespeare": 2_500_000,
    "wordnet": 2_500_000,
    "pydoc": 3_000_000,
    "sqlite": 2_000_000,
    "postgres": 1_500_000,
    "sotu": 2_000_000,
}
ENCODE_BATCH = 512

# A held-out document is cut here: one of SQLite's is a long hexadecimal dump and would outweigh the
# rest.
MAX_HELD_OUT_CHARACTERS = 8000

Splits = dict[str, dict[str, list[str]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"))
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    splits = all_splits()
    tokenizer = train_tokenizer(_tokenizer_documents(splits))
    tokenizer.save(str(work / "tokenizer.json"))
    sizes = {}
    for domain, parts in splits.items():
        for split, documents in parts.items():
            sizes[f"{domain}.{split}"] = write_stream(
                tokenizer, documents, work / f"{domain}.{split}.bin"
            )
            print(f"{domain}.{split}", sizes[f"{domain}.{split}"], flush=True)
    (work / "sizes.json").write_text(json.dumps(sizes, indent=1))


def all_splits() -> Splits:
    """Every domain's documents, shuffled and split into train and held out."""
    random = Random(SPLIT_SEED)
    writer = StoryWriter(STORY_SEED)
    stories = [writer.document() for _ in range(NUM_STORIES)]
    words = definitions(random)
    random.shuffle(words)
    num_held_out = round(HELD_OUT_SHARE * len(words))
    asked = [text for word in words[num_held_out:] for text in word] + exchanges()
    random.shuffle(asked)
    splits = {
        "stories": {
            "held_out": stories[:NUM_HELD_OUT_STORIES],
            "train": stories[NUM_HELD_OUT_STORIES:],
        },
        "questions": {
            "held_out": [text for word in words[:num_held_out] for text in word],
            "train": asked,
        },
    }
    for domain in ARCHIVED:
        documents = read_domain(domain)
        random.shuffle(documents)
        num_held_out = max(8, round(HELD_OUT_SHARE * len(documents)))
        held_out = [document[:MAX_HELD_OUT_CHARACTERS] for document in documents[:num_held_out]]
        splits[domain] = {"held_out": held_out, "train": documents[num_held_out:]}
    return splits


def _tokenizer_documents(splits: Splits) -> Iterator[str]:
    for domain, limit in TOKENIZER_CHARACTERS.items():
        num_characters = 0
        for document in splits[domain]["train"]:
            yield document
            num_characters += len(document)
            if num_characters > limit:
                break


def write_stream(tokenizer: Tokenizer, documents: list[str], path: Path) -> list[int]:
    """Writes the documents as uint16 tokens, each ended by the end token; returns
    [tokens, bytes].
    """
    tokens: list[int] = []
    for start in range(0, len(documents), ENCODE_BATCH):
        for encoding in tokenizer.encode_batch(
            documents[start : start + ENCODE_BATCH], add_special_tokens=False
        ):
            tokens.extend(encoding.ids)
            tokens.append(END_ID)
    np.array(tokens, dtype=np.uint16).tofile(path)
    return [len(tokens), sum(len(document.encode()) + 1 for document in documents)]


if __name__ == "__main__":
    main()
