"""`python -m services.gateway.template_worker`: renders chats with one template, in a process that
may be killed. It reads and writes lines of JSON, and ends with its input.
"""

import json
import sys
from typing import Any

from services.gateway.chat import ChatTemplate
from services.gateway.conversation import Conversation
from services.gateway.workers_apart import bound_memory
from services.wire.errors import InvalidRequest

# No context takes a longer text, and whoever reads it should not have to hold it.
MAX_TEXT_CHARACTERS = 4 << 20


def main() -> None:
    """The first line has the template and its special tokens, each further one a conversation; a
    line with the text, or with a refusal, answers that.
    """
    bound_memory()
    template = ChatTemplate(*json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        json.dump(_rendered(template, json.loads(line)), sys.stdout)
        print(flush=True)


def _rendered(template: ChatTemplate, conversation: dict[str, Any]) -> dict[str, Any]:
    try:
        text = template.render(Conversation.of_object(conversation))
    except InvalidRequest as error:
        return {"refusal": str(error)}
    if len(text) > MAX_TEXT_CHARACTERS:
        return {"refusal": f"chat: the model's chat template makes {len(text)} characters of it"}
    return {"text": text}


if __name__ == "__main__":
    main()
