"""The characters, places and things one story binds, drawn from `data/words.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

WORDS = Path(__file__).parent / "data" / "words.toml"
NAME_SEED = 11
MADE_NAME_SHARE = 0.7


@dataclass(frozen=True)
class Place:
    """Where a story happens: `at` it, or on the way `to` it."""

    name: str
    at: str

    @property
    def At(self) -> str:
        return self.at[0].upper() + self.at[1:]

    @property
    def to(self) -> str:
        return f"to the {self.name}"


@dataclass(frozen=True)
class Food:
    """Something to eat, with the sentences that depend on its number."""

    name: str
    is_counted: bool

    @property
    def made(self) -> str:
        if self.is_counted:
            return f"That day there was a big plate of {self.name} on the table."
        return f"That day there was some fresh {self.name}, and it smelled very good."

    @property
    def ask(self) -> str:
        if self.is_counted:
            return f"Those {self.name} look so good. May I have a few?"
        return f"Your {self.name} smells so good. May I have a little?"


@dataclass(frozen=True)
class Person:
    """Someone with a name and pronouns, the latter as the grammar spells them."""

    name: str
    is_female: bool

    @property
    def they(self) -> str:
        return "she" if self.is_female else "he"

    @property
    def them(self) -> str:
        return "her" if self.is_female else "him"

    @property
    def their(self) -> str:
        return "her" if self.is_female else "his"

    @property
    def themself(self) -> str:
        return f"{self.them}self"

    @property
    def They(self) -> str:
        return self.they.capitalize()

    @property
    def Their(self) -> str:
        return self.their.capitalize()


@dataclass(frozen=True)
class Character(Person):
    """A person or an animal with a part in the story; `intro` is how it first appears."""

    kind: str
    trait: str
    intro: str


@cache
def words() -> dict[str, Any]:
    """The word lists, with made-up names beside the three pools of real ones.

    There are many on purpose: a name that cannot be guessed has to be copied from the request.
    """
    lists = tomllib.loads(WORDS.read_text())
    made = _made_names(lists["made_names"])
    for offset, pool in enumerate(("girls", "boys", "pets")):
        lists[pool] = lists[pool].split()
        lists[f"made_{pool}"] = made[offset::3]
    return lists


def all_names(*pools: str) -> list[str]:
    """The real and the made-up names of the given pools, all of them when none is given."""
    lists = words()
    return [
        name
        for pool in pools or ("girls", "boys", "pets")
        for name in lists[pool] + lists[f"made_{pool}"]
    ]


def draw_character(random: Random, *, child: bool = False) -> Character:
    lists = words()
    is_female = random.random() < 0.5
    if not child and random.random() < 0.45:
        kind, trait, color = random.choice(lists["animals"])
        name = _draw_name(random, "pets")
        youth = random.choice(["young", "small", "kind"])
        intros = [
            f"a(n) {trait} {kind} named {name}",
            f"a(n) {color} {kind} called {name}",
            f"a {youth} {kind} whose name was {name}",
        ]
    else:
        kind = "girl" if is_female else "boy"
        name = _draw_name(random, "girls" if is_female else "boys")
        trait = random.choice(lists["traits"])
        intros = [
            f"a {trait} {kind} named {name}",
            f"a little {kind} called {name}",
            f"a young {kind} named {name}",
        ]
    return Character(name, is_female, kind, trait, random.choice(intros))


def draw_cast(random: Random, *, child: bool) -> dict[str, Any]:
    """Everything a skeleton may name; drawn whole for every story so that the order
    never varies.
    """
    lists = words()
    hero = draw_character(random, child=child)
    friend = draw_character(random)
    while friend.name == hero.name:
        friend = draw_character(random)
    spot, other_spot = random.sample(lists["spots"], 2)
    adult, pronoun = random.choice(lists["adults"])
    food = random.choice(lists["foods"] + lists["counted_foods"])
    return {
        "hero": hero,
        "friend": friend,
        "spot": spot,
        "other_spot": other_spot,
        "adult": Person(adult, pronoun == "she"),
        "food": Food(food, food in lists["counted_foods"]),
        "place": Place(*random.choice(lists["places"])),
        "animal": random.choice(lists["animals"])[0],
        "color": random.choice(lists["colors"]),
        "toy": random.choice(lists["toys"]),
        "broken": random.choice(lists["breakables"]),
        "find": random.choice(lists["finds"]),
        "weather": _thing(random, "weathers", "word", "said"),
        "skill": _thing(random, "skills", "do", "doing"),
        "trouble": _thing(random, "troubles", "name", "tool"),
        "fear": _thing(random, "fears", "name", "truth"),
        "work": _thing(random, "works", "name", "short", "stuff"),
    }


def _thing(random: Random, pool: str, *fields: str) -> SimpleNamespace:
    """One row of a word list, its columns called as the grammar calls them."""
    return SimpleNamespace(**dict(zip(fields, random.choice(words()[pool]), strict=True)))


def _draw_name(random: Random, pool: str) -> str:
    is_made = random.random() < MADE_NAME_SHARE
    pool_drawn: list[str] = words()[f"made_{pool}" if is_made else pool]
    return random.choice(pool_drawn)


def _made_names(parts: dict[str, Any]) -> list[str]:
    random = Random(NAME_SEED)
    slots = [
        parts["starts"].split(),
        parts["vowels"].split(),
        parts["middles"].split(),
        parts["vowels"].split(),
        parts["ends"],
    ]
    names = {
        "".join(random.choice(slot) for slot in slots).capitalize() for _ in range(parts["drawn"])
    }
    return sorted(names)
