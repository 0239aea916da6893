"""The continuations of one call, as far as they have come: what answers and streams are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.generation import Completed
from services.gateway.http.receipts import CallTimes, metrics_of, moesaic_of
from services.gateway.http.wanted import Wanted
from services.gateway.relay import Piece

FINISH_REASONS = {
    common_pb2.FINISH_REASON_STOP: "stop",
    common_pb2.FINISH_REASON_LENGTH: "length",
}


@dataclass
class Prompt:
    """What an answer shows of a prompt, and what is known of it later."""

    # Empty where nothing is to be shown.
    echo: str = ""
    # Where somebody asks for them.
    token_ids: Sequence[int] = ()
    num_tokens: int = 0


@dataclass
class Continuation:
    """One of them."""

    index: int
    prompt: Prompt
    num_tokens: int = 0
    # Where its next token begins in the text that is shown.
    offset: int = 0
    # Whether something was told of tokens.
    has_told: bool = False
    routed_experts: list[common_pb2.RoutedExperts] = field(default_factory=list)
    end: Completed | None = None

    @property
    def finish_reason(self) -> str | None:
        """As OpenAI's API calls it; None while it goes on."""
        return None if self.end is None else FINISH_REASONS[self.end.reason]

    @property
    def stop_reason(self) -> str | None:
        """The stop string that ended it."""
        return None if self.end is None else self.end.stop_string


class Continuations:
    """All of a call: `num_choices` of each prompt, one prompt after the other."""

    def __init__(self, prompts: Sequence[Prompt], num_choices: int, times: CallTimes) -> None:
        self._times = times
        self._prompts = prompts
        self._num_choices = num_choices
        self.all = [
            Continuation(number * num_choices + choice, prompt)
            for number, prompt in enumerate(prompts)
            for choice in range(num_choices)
        ]

    def begin(self, number: int, started: pb.Started) -> None:
        """A request has begun."""
        self._prompts[number].num_tokens = started.prompt_tokens

    def note(self, number: int, event: Piece | Completed) -> Continuation:
        """Take in what a request has yielded; the continuation that it is of."""
        one = self.all[number * self._num_choices + event.choice]
        if isinstance(event, Completed):
            one.end = event
            return one
        if event.token_ids:
            one.num_tokens += len(event.token_ids)
            self._times.note_tokens()
            if event.routed_experts:
                one.routed_experts += event.routed_experts
        return one

    @property
    def longest(self) -> Completed:
        """The end of the one that took longest, as the call's time went where its time did; all
        have ended.
        """
        ends = (one.end for one in self.all if one.end is not None)
        return max(ends, key=lambda end: end.receipt.end_to_end_nanos)

    def usage(self, wanted: Wanted) -> dict[str, int]:
        """Of all that was generated and is shown; each prompt is counted once."""
        num_prompt_tokens = sum(prompt.num_tokens for prompt in self._prompts)
        num_tokens = 0 if wanted.hides_continuation else self._num_tokens
        return usage_of(num_prompt_tokens, num_tokens)

    def measured(self, wanted: Wanted, trace_id: str) -> dict[str, Any]:
        """Where the call's time went, as far as that is to be told; all have ended."""
        end = self.longest
        document: dict[str, Any] = {"metrics": metrics_of(self._times, end, self._num_tokens)}
        if wanted.metrics:
            document["moesaic"] = moesaic_of(end, trace_id)
        return document

    @property
    def _num_tokens(self) -> int:
        return sum(one.num_tokens for one in self.all)


def usage_of(num_prompt_tokens: int, num_tokens: int) -> dict[str, int]:
    """As OpenAI's API counts."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
    }
