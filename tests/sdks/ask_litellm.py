"""What litellm makes of a server's answers, as one JSON object."""

import json
import sys
from typing import Any

import litellm

MESSAGES = [{"role": "user", "content": "Tell me of a lighthouse."}]
LENGTH = 12


def main(base_url: str, model: str) -> None:
    asked: Any = {
        "model": f"hosted_vllm/{model}",
        "api_base": base_url,
        "api_key": "none",
        "messages": MESSAGES,
        "temperature": 0,
        "max_tokens": LENGTH,
    }
    whole: Any = litellm.completion(**asked)
    chunks: Any = litellm.completion(**asked, stream=True)
    said = {
        "chat": whole.choices[0].message.content,
        "finish_reason": whole.choices[0].finish_reason,
        "usage": whole.usage.completion_tokens,
        "stream": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
