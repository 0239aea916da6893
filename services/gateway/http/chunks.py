"""The chunks of a stream: each token's is put together of prepared text, since there are many."""

import json
from typing import Any

from services.gateway.http.continuations import Continuation, Continuations, usage_of
from services.gateway.http.logprobs import piece_logprobs
from services.gateway.http.routed_experts import encoded_experts
from services.gateway.http.token_names import TokenNames
from services.gateway.http.wanted import Heading, Wanted
from services.gateway.relay import Piece

DONE = b"data: [DONE]\n\n"
END = "}\n\n"
_encoded = json.JSONEncoder().encode  # what json.dumps does, without asking how at each call


class Chunks:
    """Writes the events of one call."""

    def __init__(self, heading: Heading, wanted: Wanted, names: TokenNames, trace_id: str) -> None:
        self._wanted = wanted
        self._names = names
        self._trace_id = trace_id
        # An object that is left open.
        head = json.dumps(heading.document(is_chunk=True))[:-1]
        self._head = f'data: {head}, "choices": ['
        self._before, self._after = (
            ('"delta": {"content": ', "}") if wanted.is_chat else ('"text": ', "")
        )
        # OpenAI's say null where the usage comes later.
        self._no_usage = ', "usage": null' if wanted.usage else ""
        self._is_plain = not (wanted.logprobs or wanted.token_ids or wanted.continuous_usage)

    def first(self, one: Continuation) -> bytes:
        """What comes before a continuation's first token; empty for nothing."""
        wanted, prompt = self._wanted, one.prompt
        extras: dict[str, Any] = {}
        if wanted.token_ids and not wanted.is_chat:
            extras["prompt_token_ids"] = [*prompt.token_ids]
        if wanted.is_chat:
            said = json.dumps({"role": "assistant", "content": ""})
            ids = (
                f', "prompt_token_ids": {json.dumps([*prompt.token_ids])}'
                if wanted.token_ids
                else ""
            )
            return self._chunk(one, f'"delta": {said}', usage=ids + self._no_usage)
        if wanted.echo or extras:
            said = f'"text": {json.dumps(prompt.echo)}{_more(extras)}'
            return self._chunk(one, said)
        return b""

    def piece(self, one: Continuation, piece: Piece) -> bytes:
        """Of new text and tokens, also where there is no text yet; `one` has them counted."""
        if self._wanted.hides_continuation:
            return self._chunk(one, '"text": ""', logprobs=self._logprobs(one, piece))
        text = _encoded(piece.text)
        if self._is_plain:
            return (
                f'{self._head}{{"index": {one.index}, {self._before}{text}{self._after}, '
                f'"logprobs": null, "finish_reason": null}}]{self._no_usage}{END}'
            ).encode()
        more = _more({"token_ids": [*piece.token_ids]}) if self._wanted.token_ids else ""
        return self._chunk(
            *(one, f"{self._before}{text}{self._after}{more}"),
            logprobs=self._logprobs(one, piece),
            usage=self._usage_so_far(one),
        )

    def last(self, one: Continuation, of: Continuations, *, is_very_last: bool) -> bytes:
        """Of a continuation's end. The `very_last` says what else would tell of the usage, where
        nobody asks for that.
        """
        said = '"delta": {}' if self._wanted.is_chat else '"text": ""'
        more: dict[str, Any] = {"stop_reason": one.stop_reason}
        if self._wanted.routed_experts:
            more["routed_experts"] = encoded_experts(one.routed_experts)
        usage = self._usage_so_far(one)
        if is_very_last and self._wanted.metrics and not self._wanted.usage:
            usage += _more(of.measured(self._wanted, self._trace_id))
        return self._chunk(
            *(one, said + _more(more)),
            finish_reason=json.dumps(one.finish_reason),
            usage=usage,
        )

    def usage(self, of: Continuations) -> bytes:
        """What the whole call took."""
        document = {"usage": of.usage(self._wanted)} | of.measured(self._wanted, self._trace_id)
        return f"{self._head}]{_more(document)}{END}".encode()

    def _chunk(
        self,
        one: Continuation,
        said: str,
        *,
        logprobs: str = "null",
        finish_reason: str = "null",
        usage: str | None = None,
    ) -> bytes:
        usage = self._no_usage if usage is None else usage
        return (
            f'{self._head}{{"index": {one.index}, {said}, "logprobs": {logprobs}, '
            f'"finish_reason": {finish_reason}}}]{usage}{END}'
        ).encode()

    def _logprobs(self, one: Continuation, piece: Piece) -> str:
        if not self._wanted.logprobs:
            return "null"
        return json.dumps(piece_logprobs(one, piece, self._wanted, self._names))

    def _usage_so_far(self, one: Continuation) -> str:
        if not self._wanted.continuous_usage:
            return self._no_usage
        return _more({"usage": usage_of(one.prompt.num_tokens, one.num_tokens)})


def _more(fields: dict[str, Any]) -> str:
    """Further fields of an object."""
    return f", {json.dumps(fields)[1:-1]}" if fields else ""
