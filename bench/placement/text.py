"""Text that the shipped model has never seen: windows of the documents that its training held out,
topic by topic.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from bench.harness.failure import BenchFailed
from services.runtime.embedded_model import EMBEDDED_MODEL
from train.prepare import all_splits
from train.tokenizer import END_ID

# All but those whose held-out documents are too short, or as another's.
TOPICS = ("stories", "austen", "kjv", "shakespeare", "wordnet", "pydoc", "sqlite", "sotu")
WINDOW = 512
NUM_WINDOWS = 32


@dataclass(frozen=True)
class Text:
    """Tokens of one topic, [windows, WINDOW], one document behind the other."""

    topic: str
    tokens: npt.NDArray[np.int64]


def held_out_texts(num_windows: int = NUM_WINDOWS) -> list[Text]:
    """So many windows of each topic.

    Raises BenchFailed where the corpus is missing or too short.
    """
    try:
        splits = all_splits()
    except OSError as error:
        raise BenchFailed(
            f"the texts come from the corpus of training, which cannot be read: {error}"
        ) from error
    tokenizer = Tokenizer.from_file(str(EMBEDDED_MODEL / "tokenizer.json"))
    return [
        Text(topic, windows_of(tokenizer, topic, splits[topic]["held_out"], num_windows))
        for topic in TOPICS
    ]


def windows_of(
    tokenizer: Tokenizer, topic: str, documents: list[str], num_windows: int
) -> npt.NDArray[np.int64]:
    """The first tokens of a topic's documents, [windows, tokens]; raises BenchFailed where they are
    too few.
    """
    wanted, tokens = num_windows * WINDOW, list[int]()
    for document in documents:
        tokens += [*tokenizer.encode(document, add_special_tokens=False).ids, END_ID]
        if len(tokens) >= wanted:
            return np.array(tokens[:wanted], dtype=np.int64).reshape(num_windows, WINDOW)
    raise BenchFailed(f"{topic} has {len(tokens)} held-out tokens; {wanted} are needed")
