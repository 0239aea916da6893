"""Reads what a request wants besides a text: how likely tokens were, and how many continuations."""

from dataclasses import dataclass

from moesaic.v1 import generation_pb2 as pb
from services.wire.errors import InvalidRequest
from services.wire.logprobs import TOP_LOGPROBS, check_prompt_logprobs

MAX_CHOICES = 128


@dataclass(frozen=True)
class Results:
    """What a request wants of its continuations."""

    num_choices: int
    # None where nothing is to be said of how likely tokens were.
    top_logprobs: int | None
    prompt_logprobs: bool
    keep_special_tokens: bool
    include_stop_string: bool
    min_new_tokens: int

    def check_within(self, max_new_tokens: int, num_prompt_tokens: int) -> None:
        """Raises InvalidRequest where it is more than such a continuation, or prompt, allows."""
        if self.min_new_tokens > max_new_tokens:
            raise InvalidRequest(
                f"stop.min_new_tokens is {self.min_new_tokens}; at most {max_new_tokens} are "
                "generated"
            )
        if self.prompt_logprobs and self.top_logprobs is not None:
            check_prompt_logprobs(num_prompt_tokens, self.top_logprobs)


def read_results(request: pb.GenerateRequest) -> Results:
    """What the request says; raises InvalidRequest, naming field and limit."""
    num_choices = request.num_choices or 1
    if num_choices > MAX_CHOICES:
        raise InvalidRequest(f"num_choices is {num_choices}; the limit is {MAX_CHOICES}")
    if num_choices > 1 and request.HasField("resume"):
        raise InvalidRequest(
            f"num_choices is {num_choices}; with resume, one continuation goes on at a time"
        )
    top_logprobs = request.top_logprobs if request.HasField("top_logprobs") else None
    if top_logprobs is not None and not TOP_LOGPROBS.holds(top_logprobs):
        raise InvalidRequest(f"top_logprobs is {top_logprobs}; it must be {TOP_LOGPROBS}")
    if request.prompt_logprobs and top_logprobs is None:
        raise InvalidRequest("prompt_logprobs is set, and top_logprobs is not")
    return Results(
        num_choices=num_choices,
        top_logprobs=top_logprobs,
        prompt_logprobs=request.prompt_logprobs,
        keep_special_tokens=request.keep_special_tokens,
        include_stop_string=request.stop.include_stop_string,
        min_new_tokens=request.stop.min_new_tokens,
    )
