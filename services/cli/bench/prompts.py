"""The prompts of a load: from a file or built in, as they are or cut to a number of tokens."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

from services.cli.settings import MAX_UINT32
from services.runtime.text_files import Unreadable, read_text
from services.wire.errors import InvalidRequest

TOKENIZE_SECONDS = 60.0
Tokenise = Callable[[str], Awaitable[Sequence[int]]]
# A first guess at how much text gives enough tokens; it is doubled until it does.
CHARACTERS_PER_TOKEN = 6
# How a JSON object begins, and no text in braces.
OBJECT = re.compile(r'\s*\{\s*["}]')
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class BenchPrompt:
    """A text to continue or, cut to a length, its token ids; `max_new_tokens` where its line named
    it.
    """

    text: str
    max_new_tokens: int | None = None
    token_ids: tuple[int, ...] | None = None


def built_in_prompts() -> list[BenchPrompt]:
    """Passages of novels, plays and speeches, some lines each."""
    texts = json.loads(
        (resources.files("services.cli.bench") / "prompts.json").read_text(encoding="utf-8")
    )
    return [BenchPrompt(text) for text in texts]


def read_prompts(path: Path) -> list[BenchPrompt]:
    """The prompts of a file, one a line; empty lines are left out.

    A line that begins as a JSON object does is one with `prompt` and, optionally, `max_new_tokens`;
    any other is a text. Lines end at line feeds alone. Raises InvalidRequest, naming file and line,
    for an object of another kind, and for a file without prompts.
    """
    try:
        lines = read_text(path).split("\n")
    except Unreadable as error:
        raise InvalidRequest(f"the prompts cannot be read: {error}") from error
    prompts = [
        _prompt(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not prompts:
        raise InvalidRequest(f"{path} has no prompts")
    return prompts


async def cut_to(
    tokenise: Tokenise, prompts: Sequence[BenchPrompt], num_tokens: int
) -> list[BenchPrompt]:
    """Each prompt with exactly `num_tokens` tokens by the server's tokenizer.

    A prompt that is too long is cut; one that is too short goes on with the text of those after it,
    and after the last with the first. Raises what `tokenise` raises.
    """
    return [await _cut(tokenise, prompts, index, num_tokens) for index in range(len(prompts))]


async def _cut(
    tokenise: Tokenise, prompts: Sequence[BenchPrompt], index: int, num_tokens: int
) -> BenchPrompt:
    prompt = prompts[index]
    for doubled in count():
        text = _text_from(prompts, index, (num_tokens * CHARACTERS_PER_TOKEN) << doubled)
        token_ids = await tokenise(text)
        # One more is asked for: the last token of a text may be an end-of-sequence token.
        if len(token_ids) > num_tokens:
            return BenchPrompt(prompt.text, prompt.max_new_tokens, tuple(token_ids[:num_tokens]))
    raise AssertionError("it counts for ever")


def _text_from(prompts: Sequence[BenchPrompt], index: int, num_characters: int) -> str:
    texts, length = [], 0
    while length < num_characters:
        texts.append(prompts[index % len(prompts)].text)
        length += len(texts[-1]) + 1
        index += 1
    return "\n".join(texts)[:num_characters]


def _prompt(line: str, where: str) -> BenchPrompt:
    if not OBJECT.match(line):
        return BenchPrompt(line)
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where}: {error}") from error
    text, max_new_tokens = read.get("prompt"), read.get("max_new_tokens")
    complaints = list(_complaints(read, text, max_new_tokens))
    if complaints:
        raise InvalidRequest(f"{where}: {complaints[0]}")
    return BenchPrompt(text, max_new_tokens)


def _complaints(read: dict[str, Any], text: Any, max_new_tokens: Any) -> Iterator[str]:
    unknown = read.keys() - {"prompt", "max_new_tokens"}
    if unknown:
        yield f"{min(unknown)!r} is neither prompt nor max_new_tokens"
    if not isinstance(text, str) or not text:
        yield "prompt must be a text that is not empty"
    elif SURROGATE.search(text):
        yield "prompt must be a text; it has half of a pair of UTF-16, which is no character"
    if max_new_tokens is not None and not (
        type(max_new_tokens) is int and 1 <= max_new_tokens <= MAX_UINT32
    ):
        yield "max_new_tokens must be a whole number above 0"
