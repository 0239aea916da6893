"""Renders chats in processes of their own: a template is a program of the checkpoint's."""

import json
from collections.abc import Mapping, Sequence
from typing import IO

from services.gateway.chat import ChatTemplate
from services.gateway.conversation import Conversation
from services.gateway.workers_apart import MAX_SECONDS, WorkersApart, command_of
from services.wire.errors import InvalidRequest

COMMAND = command_of("services.gateway.template_worker")


class TemplateApart:
    """As a `ChatTemplate`; several threads may render at once, with a process each.

    A process that takes more than `max_seconds`, or more memory than it may have, is ended.
    """

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        *,
        max_seconds: float = MAX_SECONDS,
        command: Sequence[str] = COMMAND,
    ) -> None:
        here = ChatTemplate(source, special_tokens)
        self.literals, self.names = here.literals, here.names
        first = _line([source, dict(special_tokens)])
        self._workers = WorkersApart(command, first=first, max_seconds=max_seconds)

    def render(self, conversation: Conversation) -> str:
        """As `ChatTemplate.render`; raises InvalidRequest also where it was ended."""
        answer = self._workers.ask(_line(conversation.as_object()), _read_line)
        if not answer:
            raise InvalidRequest(
                "chat: the model's chat template was ended: it took more than "
                f"{self._workers.max_seconds:g} s, or too much memory"
            )
        rendered = json.loads(answer)
        if "refusal" in rendered:
            raise InvalidRequest(rendered["refusal"])
        text: str = rendered["text"]
        return text

    def close(self) -> None:
        """End the processes, also those that render."""
        self._workers.close()


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _read_line(answer: IO[bytes]) -> bytes:
    line = answer.readline()
    return line if line.endswith(b"\n") else b""
