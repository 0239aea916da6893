"""What the openai package makes of a server's answers, as one JSON object."""

import json
import sys
from typing import Any

import openai

MESSAGES: Any = [{"role": "user", "content": "Tell me of a lighthouse."}]
PROMPT = "Once upon a time"
LENGTH = 12


def main(base_url: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    asked: Any = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": LENGTH}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text: Any = client.completions.create(
        model=model, prompt=PROMPT, temperature=0, max_tokens=LENGTH, logprobs=2
    )
    with_bias = client.chat.completions.create(**asked, n=2, seed=7, presence_penalty=1.5)
    said = {
        "model": client.models.retrieve(model).id,
        "chat": whole.choices[0].message.content,
        "finish_reason": whole.choices[0].finish_reason,
        "usage": whole.usage.completion_tokens if whole.usage else None,
        "stream": "".join(
            choice.delta.content or "" for chunk in chunks for choice in chunk.choices
        ),
        "stream_finish_reason": [
            choice.finish_reason
            for chunk in chunks
            for choice in chunk.choices
            if choice.finish_reason
        ],
        "stream_usage": chunks[-1].usage.completion_tokens if chunks[-1].usage else None,
        "text": text.choices[0].text,
        "logprobs": len(text.choices[0].logprobs.tokens) if text.choices[0].logprobs else 0,
        "choices": len(with_bias.choices),
        "errors": [
            refusal(lambda: client.chat.completions.create(**{**asked, "model": "another"})),
            refusal(lambda: client.chat.completions.create(**{**asked, "temperature": -1})),
            refusal(lambda: client.chat.completions.create(**{**asked, "messages": []})),
        ],
    }
    print(json.dumps(said))


def refusal(ask: Any) -> str:
    """The name of the package's error, and whether it has our words."""
    try:
        ask()
    except openai.APIStatusError as error:
        return f"{type(error).__name__} {error.status_code}"
    return "none"


if __name__ == "__main__":
    main(sys.argv[1])
