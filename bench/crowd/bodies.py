"""Bodies over HTTP of four megabytes, in the forms that cost a parser of JSON most."""

import http.client
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

NUM_BYTES = 4 << 20
# Of a model whose requests may be as large.
LONG_CONTEXT = 1 << 17
TEXT, CHAT, DETOKENIZE = "/v1/completions", "/v1/chat/completions", "/detokenize"
HEADERS = {"Content-Type": "application/json"}
ANSWER_SECONDS = 60.0
NUM_PROMPTS, DEPTH = 128, 100
SHORT = '"prompt":"Once"'
TOOLS = '"tool_choice":"none","messages":[{"role":"user","content":"x"}],"tools":'
PARTS = '"messages":[{"role":"user","content":'


def _many(one: str, size: int) -> str:
    """A list of as many as go into the bytes."""
    return f"[{','.join([one] * (size // (len(one) + 1)))}]"


def _prompts(size: int) -> str:
    return f"[{','.join([_many('4000', size // NUM_PROMPTS)] * NUM_PROMPTS)}]"


def _keys(size: int) -> str:
    return ",".join(f'"k{number}":0' for number in range(size // 10))


def _object(**fields: str) -> str:
    return json.dumps(fields)


# By what is in them: where they go, and the fields that have so many bytes.
BODIES: Mapping[str, tuple[str, Callable[[int], str]]] = {
    "a short text": (TEXT, lambda _: SHORT),
    "token ids": (TEXT, lambda size: f'"prompt":{_many("4000", size)}'),
    "token ids of one digit": (TEXT, lambda size: f'"prompt":{_many("1", size)}'),
    "token ids of many prompts": (TEXT, lambda size: f'"prompt":{_prompts(size)}'),
    "token ids to read": (DETOKENIZE, lambda size: f'"tokens":{_many("4000", size)}'),
    "a text": (TEXT, lambda size: f'"prompt":"{"a ship " * (size // 7)}"'),
    "a text of escapes": (TEXT, lambda size: '"prompt":"' + r"\u00e9" * (size // 6) + '"'),
    "messages": (
        CHAT,
        lambda size: f'"messages":{_many(_object(role="user", content="x"), size)}',
    ),
    "parts of a message": (
        CHAT,
        lambda size: f"{PARTS}{_many(_object(type='text', text='x'), size)}}}]",
    ),
    "tools": (CHAT, lambda size: f"{TOOLS}{_many(_object(a='b'), size)}"),
    "keys that nobody knows": (TEXT, lambda size: f"{SHORT},{_keys(size)}"),
    "empty lists": (TEXT, lambda size: f'{SHORT},"x":{_many("[]", size)}'),
    "lists nested in lists": (
        TEXT,
        lambda size: f'{SHORT},"x":{_many("[" * DEPTH + "]" * DEPTH, size)}',
    ),
    "what is too deep": (TEXT, lambda size: f'"x":{"[" * size}'),
}


def body_of(kind: str, size: int = NUM_BYTES) -> bytes:
    """A request for one token."""
    _, fields = BODIES[kind]
    return f'{{"max_tokens":1,{fields(size)}}}'.encode()


def sent(*, address: str, kind: str, seconds: float) -> Mapping[str, Any]:
    """The same body again and again; how it was answered."""
    path, body = BODIES[kind][0], body_of(kind)
    statuses: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while not statuses or time.monotonic() < until:
        with closing(http.client.HTTPConnection(address, timeout=ANSWER_SECONDS)) as connection:
            connection.request("POST", path, body, HEADERS)
            statuses[str(connection.getresponse().status)] += 1
    return {"statuses": statuses, "num_calls": statuses.total()}


def long_model(model: Path, folder: Path) -> Path:
    """The same model, with a context of that many tokens."""
    copied = shutil.copytree(model, folder / model.name)
    config = copied / "config.json"
    document = json.loads(config.read_text()) | {"max_position_embeddings": LONG_CONTEXT}
    config.write_text(json.dumps(document))
    return copied
