"""Hides in a conversation the characters that control tokens could be made of, while its template
runs.
"""

import re
from collections.abc import Collection, Iterator
from itertools import islice

from tokenizers import AddedToken

from services.gateway.chat import Template
from services.gateway.control_tokens import ROLES
from services.gateway.conversation import Change, Conversation
from services.gateway.token_patterns import any_token, token_beginnings
from services.wire.errors import InvalidRequest

# Assigned to nothing: those that occur nowhere stand for characters of users while the template
# runs.
PRIVATE_CHARACTERS = range(0xF0000, 0x110000)
_WORDS = re.compile(r"[\w .-]+")


class Spellings:
    """Which texts spell control tokens, and which characters of a text could become part of one.

    A template's own words, such as the names of roles, are no text of others where they are letters
    alone: templates compare with them. An assistant's text came from the model, as did tokens in it
    that are not special: they mean what they did.
    """

    def __init__(self, control: Collection[AddedToken], template: Template) -> None:
        self.tokens = [token.content for token in control]
        self._beginnings = token_beginnings(self.tokens)
        self._special_beginnings = token_beginnings(
            token.content for token in control if token.special
        )
        self._models = any_token(token.content for token in control if not token.special)
        self.literals = template.literals
        words = {*template.literals, *template.names, *ROLES}
        self._known = {
            word
            for word in words
            if _WORDS.fullmatch(word) and not any(token in word for token in self.tokens)
        }
        # A control token that is not all the template's begins with a text's character, or goes on
        # with one where the template's words end within it.
        self.risky = {token[0] for token in self.tokens} | set(_open_ends(self.tokens, words))

    def spelt_hidden(self, hidden: dict[int, int]) -> Change:
        """Hides the first character of each control token that a text spells."""

        def change(text: str, by_assistant: bool) -> str:
            beginnings = self._special_beginnings if by_assistant else self._beginnings
            return beginnings.sub(lambda found: found[0].translate(hidden), text)

        return change

    def all_hidden(self, hidden: dict[int, int]) -> Change:
        """Hides every character that could become part of a control token."""
        spelt_hidden = self.spelt_hidden(hidden)

        def change(text: str, by_assistant: bool) -> str:
            if text in self._known:
                return text
            if not by_assistant:
                return text.translate(hidden)
            pieces = self._models.split(spelt_hidden(text, True))
            return "".join(
                piece if number % 2 else piece.translate(hidden)
                for number, piece in enumerate(pieces)
            )

        return change

    def is_risky(self, text: str) -> bool:
        """Whether a text has characters that could become part of a control token."""
        return text not in self._known and any(character in text for character in self.risky)


def hidden_characters(spellings: Spellings, conversation: Conversation) -> dict[int, int]:
    """For each character that may have to be hidden another one, which occurs nowhere; raises
    InvalidRequest where too few are left.
    """
    taken = set("".join([*spellings.literals, *conversation.texts()]))
    free = [
        *islice(
            (code for code in PRIVATE_CHARACTERS if chr(code) not in taken), len(spellings.risky)
        )
    ]
    if len(free) < len(spellings.risky):
        raise InvalidRequest(
            "chat: the messages leave none of Unicode's private use characters unused"
        )
    return dict(zip(map(ord, sorted(spellings.risky)), free, strict=True))


def _open_ends(tokens: Collection[str], words: Collection[str]) -> Iterator[str]:
    """The characters with which a text would go on a token that words have begun."""
    longest = max(map(len, tokens), default=0)
    endings = {word[-size:] for word in words for size in range(1, min(len(word), longest) + 1)}
    for token in tokens:
        reached = [size for size in range(1, len(token)) if token[:size] in endings]
        for end in reached:  # it grows meanwhile
            yield token[end]
            ends = (end + len(word) for word in words if word and token.startswith(word, end))
            reached += [size for size in ends if size < len(token) and size not in reached]
