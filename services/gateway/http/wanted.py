"""What a call is to be answered with, beside the text."""

import time
from dataclasses import dataclass, field
from typing import Any

from services.gateway.http.fields import ChatBody, GenerationBody


@dataclass(frozen=True)
class Wanted:
    """Of one request."""

    is_chat: bool
    logprobs: bool
    echo: bool
    # Nothing of the continuation is shown: max_tokens is 0.
    hides_continuation: bool
    token_ids: bool
    routed_experts: bool
    usage: bool
    continuous_usage: bool
    metrics: bool

    @classmethod
    def of(cls, body: GenerationBody) -> "Wanted":
        """What the request says."""
        options = body.stream_options
        logprobs = getattr(body, "logprobs", None)
        return cls(
            is_chat=isinstance(body, ChatBody),
            logprobs=logprobs is not None and logprobs is not False,
            echo=bool(getattr(body, "echo", None)),
            hides_continuation=not isinstance(body, ChatBody) and body.max_tokens == 0,
            token_ids=bool(body.return_token_ids),
            routed_experts=bool(body.return_routed_experts),
            usage=options is not None and bool(options.include_usage),
            continuous_usage=options is not None and bool(options.continuous_usage_stats),
            metrics=bool(body.include_metrics),
        )


@dataclass(frozen=True)
class Heading:
    """What every part of one answer begins with."""

    name: str
    model: str
    fingerprint: str
    is_chat: bool
    created: int = field(default_factory=lambda: int(time.time()))

    def document(self, *, is_chunk: bool) -> dict[str, Any]:
        """The fields, in OpenAI's order."""
        kind = "text_completion"
        if self.is_chat:
            kind = "chat.completion.chunk" if is_chunk else "chat.completion"
        return {
            "id": f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.name}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
