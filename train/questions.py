"""Questions and answers in chat form: definitions of common words, hand-written exchanges and small
sums.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from random import Random

DATA = Path(__file__).parent / "data"
WORDINGS_PER_WORD = 3
CHAT_REPEATS = 12
SUM_REPEATS = 3


@dataclass(frozen=True)
class Sense:
    """The first sense of a common word."""

    word: str
    part: str
    is_counted: bool
    gloss: str

    @property
    def with_article(self) -> str:
        return f"{article(self.word)} {self.word}"


def definitions(random: Random) -> list[list[str]]:
    """For every word its differently worded questions; a word is held out whole or not at all."""
    return [
        [
            f"<|user|>{question}<|assistant|>{_answer(sense)}"
            for question in _questions(sense, random)
        ]
        for sense in _senses()
    ]


def exchanges() -> list[str]:
    """The hand-written exchanges and the small sums, repeated so that they are learnt by heart."""
    groups = tomllib.loads((DATA / "chat.toml").read_text())["group"]
    chat = [(ask, answer) for group in groups for ask in group["ask"] for answer in group["answer"]]
    sums = [
        (f"What is {a} {word} {b}?", f"{a} {word} {b} is {a + b}.")
        for a in range(1, 13)
        for b in range(1, 10)
        for word in ("plus", "and")
    ]
    return [
        f"<|user|>{ask}<|assistant|>{answer}"
        for ask, answer in chat * CHAT_REPEATS + sums * SUM_REPEATS
    ]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _senses() -> list[Sense]:
    rows = (line.split("\t") for line in (DATA / "common_senses.tsv").read_text().splitlines())
    return [Sense(word, part, number == "counted", gloss) for word, part, number, gloss in rows]


def _questions(sense: Sense, random: Random) -> list[str]:
    wordings = [
        f"What does {sense.word} mean?",
        f"Define {sense.word}.",
        f"What does the word {sense.word} mean?",
    ]
    if sense.part == "verb":
        wordings += [f"What does it mean to {sense.word}?", f"What does to {sense.word} mean?"]
        return random.sample(wordings, WORDINGS_PER_WORD)
    if sense.part == "adj":
        return wordings
    thing = sense.with_article if sense.is_counted else sense.word
    return [f"What is {thing}?", *random.sample(wordings, WORDINGS_PER_WORD - 1)]


def _answer(sense: Sense) -> str:
    if sense.part == "verb":
        return f"To {sense.word} means to {sense.gloss}."
    if sense.part == "adj":
        return f"{sense.word.capitalize()} means {sense.gloss}."
    thing = sense.with_article if sense.is_counted else sense.word
    return f"{thing.capitalize()} is {sense.gloss}."
