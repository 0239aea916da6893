"""Streams a chat with OpenAI's own client.

    pip install openai
    OPENAI_API_KEY=… python examples/clients/chat.py "Tell me a story." [URL]

The key is a token of the gateway's; any word will do where it wants none.
"""

import os
import sys

from openai import OpenAI


def main(question: str, url: str = "http://127.0.0.1:8000/v1") -> None:
    """Print the answer as it comes."""
    client = OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
    stream = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": question}],
        max_tokens=64,
        stream=True,
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
