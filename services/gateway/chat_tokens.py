"""Tokens of a chat: control tokens are those that the template writes; what users spell
stays text.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from tokenizers import Tokenizer

from services.gateway.chat import Template
from services.gateway.control_tokens import ROLES, SecretTokenizer, control_tokens
from services.gateway.encoding import encode
from services.wire.errors import InvalidRequest

# Assigned to nothing: those that occur nowhere stand for characters of users while the template
# runs.
PRIVATE_CHARACTERS = range(0xF0000, 0x110000)

ChatMessage = Mapping[str, str]


class ChatTokens:
    """Renders and tokenises chats.

    Where a message spells control tokens, the first character of each is disguised while the
    template runs. What is a control token then is the template's, and gets a secret spelling before
    the disguise is taken off and all is encoded at once.
    """

    def __init__(self, tokenizer: Tokenizer, template: Template) -> None:
        self._tokenizer = tokenizer
        self._template = template
        control = control_tokens(tokenizer, template)
        self._control_ids = frozenset(control)
        self._control = [token.content for token in control.values()]
        # An assistant's text came from the model, as did tokens in it that are not special: they
        # mean what they did.
        self._special = [token.content for token in control.values() if token.special]
        # Looked for in normalised text, where other characters can come to spell them.
        self._normalised = [
            tokenizer.normalizer.normalize_str(token.content)
            for token in control.values()
            if token.normalized and tokenizer.normalizer is not None
        ]
        self._secret = SecretTokenizer(tokenizer, control)

    def encode(self, messages: Sequence[ChatMessage], *, parse_control_tokens: bool) -> list[int]:
        """Token ids of the prompt that asks for the answer to `messages`, each with `role` and
        `content`.

        With `parse_control_tokens` what users spell is control tokens, too. Raises InvalidRequest
        where the template refuses the messages, or where the tokenizer cannot read a control token
        as text.
        """
        if parse_control_tokens:
            return self._encode_as_it_stands(messages)
        if self._spell(messages):
            return self._encode_as_text(messages)
        as_it_stands = self._encode_as_it_stands(messages)
        if all(self._knows(message["role"]) for message in messages):
            return as_it_stands
        # A role that the template does not name is nothing special, unless it became part of a
        # control token.
        as_text = self._encode_as_text(messages)
        return (
            as_it_stands if self._control_of(as_it_stands) == self._control_of(as_text) else as_text
        )

    def _spell(self, messages: Sequence[ChatMessage]) -> bool:
        by_assistants = "\0".join(
            message["content"] for message in messages if message["role"] == "assistant"
        )
        by_others = "\0".join(
            message["content"] for message in messages if message["role"] != "assistant"
        )
        return (
            any(token in by_assistants for token in self._special)
            or any(token in by_others for token in self._control)
            or bool(
                self._normalised and self._spell_when_normalised(by_assistants + "\0" + by_others)
            )
        )

    def _spell_when_normalised(self, text: str) -> bool:
        normalised = self._tokenizer.normalizer.normalize_str(text)
        return any(token in normalised for token in self._normalised)

    def _knows(self, role: str) -> bool:
        return role in ROLES or (
            role in self._template.literals and not any(token in role for token in self._control)
        )

    def _encode_as_it_stands(self, messages: Sequence[ChatMessage]) -> list[int]:
        ids: list[int] = encode(
            self._tokenizer, self._template.render(messages), add_special_tokens=False
        ).ids
        return ids

    def _encode_as_text(self, messages: Sequence[ChatMessage]) -> list[int]:
        disguise = self._disguise(messages)
        rendered = self._template.render(
            [self._disguised(message, disguise) for message in messages]
        )
        text = self._secret.in_secret(rendered).translate(
            {after: before for before, after in disguise.items()}
        )
        try:
            return self._secret.encode(text)
        except ValueError as error:
            raise InvalidRequest(
                f"chat: the model's tokenizer cannot read {str(error)!r} as text; leave it out, "
                "or set chat.parse_control_tokens to have it as a control token"
            ) from error

    def _disguise(self, messages: Sequence[ChatMessage]) -> dict[int, int]:
        """For each character that may have to be hidden another one, which occurs nowhere."""
        strange_roles = [
            message["role"] for message in messages if not self._knows(message["role"])
        ]
        hidden = {*(ord(token[0]) for token in self._control), *map(ord, "".join(strange_roles))}
        taken = set(
            "".join(
                [
                    *self._template.literals,
                    *(text for message in messages for text in message.values()),
                ]
            )
        )
        free = [
            *islice((code for code in PRIVATE_CHARACTERS if chr(code) not in taken), len(hidden))
        ]
        if len(free) < len(hidden):
            raise InvalidRequest(
                "chat: the messages leave none of Unicode's private use characters unused"
            )
        return dict(zip(sorted(hidden), free, strict=True))

    def _disguised(self, message: ChatMessage, disguise: Mapping[int, int]) -> ChatMessage:
        role, content = message["role"], message["content"]
        for token in self._special if role == "assistant" else self._control:
            while token in content:  # once more where it overlaps itself
                content = content.replace(token, token[0].translate(disguise) + token[1:])
        return {"role": role if self._knows(role) else role.translate(disguise), "content": content}

    def _control_of(self, ids: Iterable[int]) -> list[int]:
        return [token_id for token_id in ids if token_id in self._control_ids]
