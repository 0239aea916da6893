"""Log probabilities as chats and texts of OpenAI's API have them."""

from collections.abc import Sequence
from typing import Any

from moesaic.v1 import common_pb2
from services.gateway.http.token_names import TokenNames

Positions = Sequence[common_pb2.PositionLogprobs]
# JSON has no infinity; OpenAI's clients know this one.
LEAST = -9999.0


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
        tops.append({names.of(one.token_id).text: _value(one) for one in position.top} or None)
        offsets.append(offset)
        offset += len(text)
    document = {
        "tokens": texts,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }
    return document, offset


def _named(one: common_pb2.TokenLogprob, names: TokenNames) -> dict[str, Any]:
    name = names.of(one.token_id)
    return {"token": name.text, "logprob": _value(one), "bytes": list(name.bytes)}


def _value(one: common_pb2.TokenLogprob) -> float:
    return max(LEAST, one.logprob)
