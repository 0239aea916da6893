"""Encodes prompts apart, where a tokenizer could take any time: it is a program of the
checkpoint's.
"""

import logging
from collections.abc import Mapping

from services.gateway.apart import Apart, Ended
from services.gateway.conversation import Conversation
from services.gateway.tokenizer_files import TokenizerFile
from services.gateway.workers_apart import MAX_SECONDS, command_of
from services.metadata.refusals import UnusableModel
from services.wire.errors import BadState, InvalidRequest

logger = logging.getLogger(__name__)

COMMAND = command_of("services.gateway.prompt_worker")


class PromptTokensApart:
    """As `PromptTokensHere`; templates are rendered in the same processes."""

    def __init__(
        self,
        file: TokenizerFile,
        special_tokens: Mapping[str, str],
        templates: Mapping[str, str],
        *,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        beginning = [str(file.path), file.digest, dict(special_tokens), dict(templates)]
        self._path = file.path
        self._apart = Apart(COMMAND, beginning, max_seconds=max_seconds)

    def of_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return self._asked("text", {"text": text, "add_special_tokens": add_special_tokens})

    def of_chat(
        self, conversation: Conversation, template_name: str, *, parse_control_tokens: bool
    ) -> list[int]:
        said = {"chat": conversation.as_object(), "template": template_name}
        return self._asked("chat", said | {"parse_control_tokens": parse_control_tokens})

    def check(self) -> None:
        """Raise UnusableModel where the tokenizer cannot be read, and an empty text be encoded, in
        the time and memory of a process.
        """
        try:
            self._apart.ask({"text": "", "add_special_tokens": True})
        except Ended as error:
            raise UnusableModel(f"{self._path} cannot be read: {error}") from error
        except (BadState, InvalidRequest) as error:
            raise UnusableModel(str(error)) from error

    def close(self) -> None:
        self._apart.close()

    def _asked(self, field: str, question: object) -> list[int]:
        try:
            ids: list[int] = self._apart.ask(question)
        except Ended as error:
            raise InvalidRequest(f"{field}: the model's tokenizer was ended: {error}") from error
        except BadState as error:
            logger.error("%s", error)
            raise BadState("the model's tokenizer cannot be read any more") from error
        return ids
