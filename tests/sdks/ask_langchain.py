"""What langchain-openai makes of a server's answers, as one JSON object."""

import json
import sys
from typing import Any

from langchain_openai import ChatOpenAI

QUESTION = "Tell me of a lighthouse."
LENGTH = 12


def main(base_url: str, model: str) -> None:
    chat: Any = ChatOpenAI(
        base_url=base_url, api_key="none", model=model, temperature=0, max_tokens=LENGTH
    )
    whole = chat.invoke(QUESTION)
    said = {
        "chat": whole.content,
        "finish_reason": whole.response_metadata["finish_reason"],
        "usage": whole.usage_metadata["output_tokens"],
        "stream": "".join(chunk.content for chunk in chat.stream(QUESTION)),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
