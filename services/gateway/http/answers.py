"""Answers in one piece, of the same events that streams are made of."""

from dataclasses import dataclass, field
from typing import Any

from moesaic.v1 import common_pb2
from services.gateway.http.continuations import Continuation, Continuations, usage_of
from services.gateway.http.logprobs import chat_logprobs, text_logprobs
from services.gateway.http.receipts import metrics_of, moesaic_of
from services.gateway.http.routed_experts import encoded_experts
from services.gateway.http.token_names import TokenNames
from services.gateway.http.wanted import Heading, Wanted
from services.gateway.relay import Piece


@dataclass
class _Whole:
    """All that one continuation says."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[common_pb2.PositionLogprobs] = field(default_factory=list)


class Answer:
    """Gathers the events of one call."""

    def __init__(self, heading: Heading, wanted: Wanted, names: TokenNames, trace_id: str) -> None:
        self._heading = heading
        self._wanted = wanted
        self._names = names
        self._trace_id = trace_id
        self._wholes: dict[int, _Whole] = {}

    def add(self, one: Continuation, piece: Piece) -> None:
        """More of a continuation."""
        if self._wanted.hides_continuation:
            return
        whole = self._wholes.setdefault(one.index, _Whole())
        whole.texts.append(piece.text)
        whole.token_ids += piece.token_ids
        if piece.logprobs:
            whole.logprobs += piece.logprobs

    def document(self, of: Continuations) -> dict[str, Any]:
        """The answer, when all have ended."""
        end, wanted = of.longest, self._wanted
        num_tokens = 0 if wanted.hides_continuation else of.num_tokens
        document = self._heading.document(is_chunk=False) | {
            "choices": [self._choice(one) for one in of.all if one.end is not None],
            "usage": usage_of(of.num_prompt_tokens, num_tokens),
            "metrics": metrics_of(of.times, end, of.num_tokens),
        }
        if wanted.metrics:
            document["moesaic"] = moesaic_of(end, self._trace_id)
        if wanted.is_chat and wanted.token_ids:
            document["prompt_token_ids"] = [*of.all[0].prompt.token_ids]
        return document

    def _choice(self, one: Continuation) -> dict[str, Any]:
        whole, wanted = self._wholes.get(one.index, _Whole()), self._wanted
        text = one.prompt.echo + "".join(whole.texts)
        said: dict[str, Any] = {"index": one.index}
        if wanted.is_chat:
            said["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            said["text"] = text
        said["logprobs"] = self._logprobs(one, whole) if wanted.logprobs else None
        said["finish_reason"] = one.finish_reason
        said["stop_reason"] = one.stop_reason
        if wanted.token_ids:
            said["token_ids"] = whole.token_ids
            if not wanted.is_chat:
                said["prompt_token_ids"] = [*one.prompt.token_ids]
        if wanted.routed_experts:
            said["routed_experts"] = encoded_experts(one.routed_experts)
        return said

    def _logprobs(self, one: Continuation, whole: _Whole) -> dict[str, Any]:
        if self._wanted.is_chat:
            return chat_logprobs(whole.logprobs, self._names)
        tells_prompt = self._wanted.echo and one.tells_prompt
        echoed = one.prompt.logprobs if tells_prompt else ()
        first = one.prompt.token_ids[0] if tells_prompt else None
        document, _ = text_logprobs(
            (*echoed, *whole.logprobs), self._names, offset=one.offset, first=first
        )
        return document
