"""Log probabilities as chats and texts of OpenAI's API have them."""

import json
from collections.abc import Sequence
from typing import Any

from moesaic.v1 import common_pb2
from services.gateway.http.continuations import Continuation
from services.gateway.http.token_names import TokenNames
from services.gateway.http.wanted import Wanted
from services.gateway.relay import Piece

Positions = Sequence[common_pb2.PositionLogprobs]
# JSON has no infinity; OpenAI's clients know this one.
LEAST = -9999.0


def piece_logprobs(
    one: Continuation, piece: Piece, wanted: Wanted, names: TokenNames
) -> dict[str, Any]:
    """Of a piece of a continuation, in order; with its first one of the prompt, where that is
    echoed.
    """
    if wanted.is_chat:
        return chat_logprobs(piece.logprobs, names)
    tells_prompt = wanted.echo and not one.has_told
    one.has_told = True
    positions = () if wanted.hides_continuation else piece.logprobs
    document, one.offset = text_logprobs(
        (*piece.prompt_logprobs, *positions),
        names,
        offset=one.offset,
        first=one.prompt.token_ids[0] if tells_prompt else None,
    )
    return document


class GatheredLogprobs:
    """Those of all pieces as one object, kept as the text that they become: to write it at the end
    would hold others up, and whatever else it is kept as is larger.
    """

    def __init__(self) -> None:
        self._lists: dict[str, list[str]] = {}
        self._others: dict[str, Any] = {}

    def add(self, document: dict[str, Any]) -> None:
        """What `piece_logprobs` made of the next piece."""
        for name, value in document.items():
            if not isinstance(value, list):
                self._others[name] = value
            elif value:
                self._lists.setdefault(name, []).append(json.dumps(value)[1:-1])
            else:
                self._lists.setdefault(name, [])

    def written(self) -> str:
        """In JSON."""
        fields = [f'"{name}": [{", ".join(parts)}]' for name, parts in self._lists.items()]
        fields += [f'"{name}": {json.dumps(value)}' for name, value in self._others.items()]
        return f"{{{', '.join(fields)}}}"


def chat_logprobs(positions: Positions, names: TokenNames) -> dict[str, Any]:
    """Of tokens of a chat."""
    return {
        "content": [
            _named(position.token, names)
            | {"top_logprobs": [_named(one, names) for one in position.top]}
            for position in positions
        ],
        "refusal": None,
    }


def text_logprobs(
    positions: Positions, names: TokenNames, *, offset: int, first: int | None = None
) -> tuple[dict[str, Any], int]:
    """Of tokens of a text that begin at `offset` in it, and where they end. Of a prompt's `first`
    token nothing is known.
    """
    texts: list[str] = []
    values: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    offsets: list[int] = []
    if first is not None:
        text = names.of(first).text
        texts, values, tops, offsets = [text], [None], [None], [offset]
        offset += len(text)
    for position in positions:
        text = names.of(position.token.token_id).text
        texts.append(text)
        values.append(_value(position.token))
        tops.append(_by_text((*position.top, position.token), names))
        offsets.append(offset)
        offset += len(text)
    document = {
        "tokens": texts,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }
    return document, offset


def _by_text(top: Sequence[common_pb2.TokenLogprob], names: TokenNames) -> dict[str, float]:
    """In their order. Parts of characters read alike: of those the first is told."""
    values: dict[str, float] = {}
    for one in top:
        values.setdefault(names.of(one.token_id).text, _value(one))
    return values


def _named(one: common_pb2.TokenLogprob, names: TokenNames) -> dict[str, Any]:
    name = names.of(one.token_id)
    return {"token": name.text, "logprob": _value(one), "bytes": list(name.bytes)}


def _value(one: common_pb2.TokenLogprob) -> float:
    return max(LEAST, one.logprob)
