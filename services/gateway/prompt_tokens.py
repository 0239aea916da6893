"""Token ids of prompts, in this process or in others."""

from collections.abc import Mapping
from typing import Protocol

from tokenizers import Tokenizer

from services.gateway.chat import ChatTemplate
from services.gateway.chat_tokens import ChatTokens
from services.gateway.conversation import Conversation
from services.gateway.encoding import encode
from services.gateway.templates_apart import TemplateApart


class PromptTokens(Protocol):
    """Several threads may ask at once. Each method raises InvalidRequest."""

    def of_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Of plain text, with those that the tokenizer adds or without."""

    def of_chat(
        self, conversation: Conversation, template_name: str, *, parse_control_tokens: bool
    ) -> list[int]:
        """Of a conversation by the template of that name, as `ChatTokens.encode` has them."""

    def close(self) -> None:
        """End the processes."""


class PromptTokensHere:
    """Encodes in the thread that asks."""

    def __init__(
        self, tokenizer: Tokenizer, templates: Mapping[str, ChatTemplate | TemplateApart]
    ) -> None:
        self._tokenizer = tokenizer
        self._templates = templates
        self._chats = {
            name: ChatTokens(tokenizer, template) for name, template in templates.items()
        }

    def of_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = encode(self._tokenizer, text, add_special_tokens=add_special_tokens).ids
        return ids

    def of_chat(
        self, conversation: Conversation, template_name: str, *, parse_control_tokens: bool
    ) -> list[int]:
        return self._chats[template_name].encode(
            conversation, parse_control_tokens=parse_control_tokens
        )

    def close(self) -> None:
        for template in self._templates.values():
            if isinstance(template, TemplateApart):
                template.close()
