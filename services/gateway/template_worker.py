"""`python -m services.gateway.template_worker`: renders chats with one template, in a process that
may be killed.
"""

from typing import Any

from services.gateway.answering import Answering, answer_lines
from services.gateway.chat import ChatTemplate
from services.gateway.conversation import Conversation
from services.wire.errors import InvalidRequest

# No context takes a longer text, and whoever reads it should not have to hold it.
MAX_TEXT_CHARACTERS = 4 << 20


def begin(beginning: Any) -> Answering:
    """`beginning` has the template and its special tokens, each line after it a conversation, whose
    text is the answer.
    """
    template = ChatTemplate(*beginning)

    def rendered(conversation: Any) -> str:
        text = template.render(Conversation.of_object(conversation))
        if len(text) > MAX_TEXT_CHARACTERS:
            raise InvalidRequest(f"chat: the model's chat template makes {len(text)} characters")
        return text

    return rendered


if __name__ == "__main__":
    answer_lines(begin)
