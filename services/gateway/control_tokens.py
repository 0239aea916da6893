"""The control tokens of a chat template, and a tokenizer that knows them by secret
spellings alone.
"""

import secrets
from collections.abc import Collection, Mapping

from tokenizers import AddedToken, Tokenizer

from services.gateway.chat import Template
from services.gateway.token_patterns import any_token

# Who speaks, in templates that put the name of a role within a control token.
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def control_tokens(tokenizer: Tokenizer, template: Template) -> dict[int, AddedToken]:
    """Added tokens that a template may write as more than text: special ones, and those in its own
    words.

    The name of a role may be put in between such words. Runs of white space are text wherever they
    stand.
    """
    added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
    return {
        token_id: token
        for token_id, token in added.items()
        if token.special
        or (not token.content.isspace() and _can_be_written(token.content, template.literals))
    }


def _can_be_written(token: str, literals: Collection[str]) -> bool:
    ways = [[token], *(token.split(role, 1) for role in ROLES if role in token)]
    return any(
        all(any(part in literal for literal in literals) for part in parts) for parts in ways
    )


class SecretTokenizer:
    """Encodes text in which some added tokens have spellings that nobody can guess; their own ones
    are plain text.

    All else is as in the tokenizer that it is made of, whose model it shares: where added tokens
    take white space with them, how text is cut in pieces, what is put before a piece.
    """

    def __init__(self, tokenizer: Tokenizer, hidden: Mapping[int, AddedToken]) -> None:
        self._hidden = {token_id: token.content for token_id, token in hidden.items()}
        self._spellings = {
            content: _secret_spelling(token_id, content)
            for token_id, content in self._hidden.items()
        }
        self._pattern = any_token(self._spellings)
        added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
        spelt = {token_id: self._spelt(token) for token_id, token in sorted(added.items())}
        self._tokenizer = Tokenizer(tokenizer.model)
        self._tokenizer.normalizer, self._tokenizer.pre_tokenizer = (
            tokenizer.normalizer,
            tokenizer.pre_tokenizer,
        )
        self._tokenizer.add_tokens([*spelt.values()])
        # Added tokens that are no words of the model are counted anew.
        self._ids = {
            self._tokenizer.token_to_id(token.content): token_id
            for token_id, token in spelt.items()
        }

    def in_secret(self, text: str) -> str:
        """`text` with the hidden tokens that it spells in their secret spellings."""
        return self._pattern.sub(lambda found: self._spellings[found[0]], text)

    def spelt_in(self, text: str) -> list[str]:
        """The hidden tokens that `text` spells, in order."""
        return self._pattern.findall(text)

    def encode(self, text: str) -> list[int]:
        """Token ids, as the tokenizer that this one is made of has them.

        Raises ValueError, with the text, where hidden tokens are words of the model too, and it
        reads one in text.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if (
                token_id in self._hidden
                and token_id not in self._ids
                and self._hidden[token_id] in text[start:end]
            ):
                raise ValueError(self._hidden[token_id])
        return [self._ids.get(token_id, token_id) for token_id in encoding.ids]

    def _spelt(self, token: AddedToken) -> AddedToken:
        return AddedToken(
            self._spellings.get(token.content, token.content),
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized,
            special=token.special,
        )


def _secret_spelling(token_id: int, content: str) -> str:
    # As long for every token, so that none begins another; first and last character are what
    # neighbours may look at.
    return f"{content[0]}{secrets.token_hex(8)}{token_id:08x}{content[-1]}"
