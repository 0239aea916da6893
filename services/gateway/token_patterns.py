"""Regular expressions that find any of many tokens in one pass, however many there are."""

import re
from collections.abc import Iterable
from typing import Any

END = ""


def any_token(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds tokens one after the other, the longest where several begin; each is a group."""
    trie = _trie(tokens)
    return re.compile(f"({_written(trie) if trie else '(?!)'})")


def token_beginnings(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds the first character of each token, also of those that begin within another."""
    beginnings = [
        f"{re.escape(first)}(?={_written(rest)})" for first, rest in _trie(tokens).items() if first
    ]
    return re.compile("|".join(beginnings) or "(?!)")


def _trie(tokens: Iterable[str]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for token in tokens:
        node = root
        for character in token:
            node = node.setdefault(character, {})
        node[END] = {}
    return root


def _written(trie: dict[str, Any]) -> str:
    """What follows from here; beginnings in common are written once."""
    prefix = ""
    while len(trie) == 1 and END not in trie:
        ((character, trie),) = trie.items()
        prefix += re.escape(character)
    ways = [re.escape(first) + _written(rest) for first, rest in trie.items() if first]
    if not ways:
        return prefix
    return f"{prefix}(?:{'|'.join(ways)}){'?' if END in trie else ''}"
