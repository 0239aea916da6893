"""Writes seeded stories, letters, talks and sums from the grammar in `data/stories.toml`."""

import re
import tomllib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from train.cast import draw_cast, draw_character, words

GRAMMAR = Path(__file__).parent / "data" / "stories.toml"
SHORT_FORMS = ("sums", "letter", "talk")
SHORT_FORM_SHARE = 0.14
REQUEST_SHARE = 0.45

FRAGMENT = re.compile(r"<([a-z]+)>")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
ARTICLE = re.compile(r"\b([Aa])\(n\) (?=(\w))")


class StoryWriter:
    """Draws one document after another; the same seed always gives the same documents."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._long_forms = tuple(
            name for name in _grammar()["skeletons"] if name not in SHORT_FORMS
        )

    def document(self) -> str:
        """One document; 45 % of the stories answer a request written with the chat tokens."""
        random = self._random
        is_short = random.random() < SHORT_FORM_SHARE
        name = random.choice(SHORT_FORMS if is_short else self._long_forms)
        if name == "sums":
            return self._sums()
        skeleton = _grammar()["skeletons"][name]
        cast = draw_cast(random, child=skeleton.get("child", False))
        cast["moral"] = random.choice(skeleton["morals"]) if skeleton["morals"] else ""
        cast["about"] = skeleton["about"].format_map(cast)
        body = self._write(skeleton["text"].strip(), cast)
        if is_short or random.random() >= REQUEST_SHARE:
            return body
        return f"<|user|>{self._write('<request>', cast)}<|assistant|>{body}"

    def _write(self, text: str, cast: dict[str, Any]) -> str:
        fragments = _grammar()["fragments"]
        while FRAGMENT.search(text):
            text = FRAGMENT.sub(lambda found: self._random.choice(fragments[found[1]]), text)
        while CHOICE.search(text):
            text = CHOICE.sub(lambda found: self._random.choice(found[1].split("|")), text)
        return ARTICLE.sub(_article, text.format_map(cast))

    def _sums(self) -> str:
        return "\n\n".join(self._sum() for _ in range(self._random.randint(2, 4)))

    def _sum(self) -> str:
        who = draw_character(self._random, child=True)
        have, change = self._random.randint(1, 12), self._random.randint(1, 9)
        what = self._random.choice(words()["countables"])
        if self._random.random() < 0.5 or have <= change:
            turn, left = f"gets {change} more {what}", have + change
        else:
            turn, left = f"gives away {change} {what}", have - change
        return f"{who.name} has {have} {what}. {who.They} {turn}. Now {who.they} has {left} {what}."


@cache
def _grammar() -> dict[str, Any]:
    return tomllib.loads(GRAMMAR.read_text())


def _article(found: re.Match[str]) -> str:
    return found[1] + ("n " if found[2] in "aeiou" else " ")
