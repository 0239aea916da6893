"""Answers in one piece, of the same events that streams are made of."""

import json
from dataclasses import dataclass, field
from typing import Any

from services.gateway.http.continuations import Continuation, Continuations
from services.gateway.http.logprobs import GatheredLogprobs, piece_logprobs
from services.gateway.http.routed_experts import encoded_experts
from services.gateway.http.token_names import TokenNames
from services.gateway.http.wanted import Heading, Wanted
from services.gateway.relay import Piece

# Of a continuation that ends before its first token.
NOTHING = Piece("", (), ())


@dataclass
class _Whole:
    """All that one continuation says."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: GatheredLogprobs = field(default_factory=GatheredLogprobs)


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
        whole = self._wholes.setdefault(one.index, _Whole())
        if self._wanted.logprobs:
            whole.logprobs.add(piece_logprobs(one, piece, self._wanted, self._names))
        if not self._wanted.hides_continuation:
            whole.texts.append(piece.text)
            whole.token_ids += piece.token_ids

    def written(self, of: Continuations) -> bytes:
        """The answer in JSON, when all have ended."""
        choices = ", ".join(self._choice(one) for one in of.all if one.end is not None)
        head = json.dumps(self._heading.document(is_chunk=False))[:-1]
        return f'{head}, "choices": [{choices}], {json.dumps(self._measured(of))[1:]}'.encode()

    def _measured(self, of: Continuations) -> dict[str, Any]:
        wanted = self._wanted
        document: dict[str, Any] = {"usage": of.usage(wanted)}
        document |= of.measured(wanted, self._trace_id)
        if wanted.is_chat and wanted.token_ids:
            document["prompt_token_ids"] = [*of.all[0].prompt.token_ids]
        return document

    def _choice(self, one: Continuation) -> str:
        if one.index not in self._wholes:
            self.add(one, NOTHING)
        whole, wanted = self._wholes[one.index], self._wanted
        text = one.prompt.echo + "".join(whole.texts)
        said: dict[str, Any] = {"index": one.index}
        if wanted.is_chat:
            said["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            said["text"] = text
        logprobs = whole.logprobs.written() if wanted.logprobs else "null"
        more: dict[str, Any] = {"finish_reason": one.finish_reason, "stop_reason": one.stop_reason}
        if wanted.token_ids:
            more["token_ids"] = whole.token_ids
            if not wanted.is_chat:
                more["prompt_token_ids"] = [*one.prompt.token_ids]
        if wanted.routed_experts:
            more["routed_experts"] = encoded_experts(one.routed_experts)
        return f'{json.dumps(said)[:-1]}, "logprobs": {logprobs}, {json.dumps(more)[1:]}'
