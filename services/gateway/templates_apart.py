"""Renders chats apart: a template is a program of the checkpoint's."""

from collections.abc import Mapping, Sequence

from services.gateway.apart import Apart, Ended
from services.gateway.chat import ChatTemplate
from services.gateway.conversation import Conversation
from services.gateway.workers_apart import MAX_SECONDS, command_of
from services.wire.errors import InvalidRequest

COMMAND = command_of("services.gateway.template_worker")


class TemplateApart:
    """As a `ChatTemplate`; several threads may render at once."""

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
        self._apart = Apart(command, [source, dict(special_tokens)], max_seconds=max_seconds)

    def render(self, conversation: Conversation) -> str:
        """As `ChatTemplate.render`; raises InvalidRequest also where the process was ended."""
        try:
            text: str = self._apart.ask(conversation.as_object())
        except Ended as error:
            raise InvalidRequest(f"chat: the model's chat template was ended: {error}") from error
        return text

    def close(self) -> None:
        """End the processes."""
        self._apart.close()
