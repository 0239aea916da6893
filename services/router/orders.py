"""Checks a gateway's sequence request and turns it into an order."""

from moesaic.v1 import router_pb2
from services.router.engine.sequence import Order, Scoring, TraceDetail
from services.runtime.span_writing import SpanRef
from services.wire.errors import InvalidRequest
from services.wire.logprobs import TOP_LOGPROBS, check_prompt_logprobs
from services.wire.sampling import Sampling, read_complete_sampling


def order_of(request: router_pb2.SequenceRequest, vocab_size: int) -> Order:
    """The order that a request stands for.

    Raises InvalidRequest, naming the field and the limit.
    """
    prompt, generated = tuple(request.prompt_token_ids), tuple(request.generated_token_ids)
    if not prompt:
        raise InvalidRequest("prompt_token_ids is empty")
    _check_vocabulary("prompt_token_ids", prompt, vocab_size)
    _check_vocabulary("generated_token_ids", generated, vocab_size)
    if request.max_new_tokens < 1:
        raise InvalidRequest("max_new_tokens is 0; it must be at least 1")
    if len(generated) >= request.max_new_tokens:
        raise InvalidRequest(
            f"generated_token_ids has {len(generated)} tokens; max_new_tokens is "
            f"{request.max_new_tokens}, and nothing follows them"
        )
    sampling = read_complete_sampling(request.sampling)
    for field, token_ids in sampling.named_tokens:
        _check_vocabulary(field, token_ids, vocab_size)
    stop_token_ids = frozenset(request.stop_token_ids)
    _check_something_is_left(request, sampling, stop_token_ids, vocab_size)
    trace = request.trace
    return Order(
        # What was generated is known as a prompt is: each draw depends on its position alone.
        prompt=prompt + generated,
        sampling=sampling,
        max_new_tokens=request.max_new_tokens - len(generated),
        stop_token_ids=stop_token_ids,
        num_resumed=len(generated),
        min_new_tokens=request.min_new_tokens,
        scoring=_scoring(request),
        return_routed_experts=request.return_routed_experts,
        trace_parent=SpanRef.parse(trace.traceparent, trace.tracestate),
        trace_detail=_trace_detail(request.trace_detail),
    )


def _scoring(request: router_pb2.SequenceRequest) -> Scoring | None:
    if not request.HasField("top_logprobs"):
        if request.prompt_logprobs:
            raise InvalidRequest("prompt_logprobs is set, and top_logprobs is not")
        return None
    num_top = request.top_logprobs
    if not TOP_LOGPROBS.holds(num_top):
        raise InvalidRequest(f"top_logprobs is {num_top}; it must be {TOP_LOGPROBS}")
    num_prompt = len(request.prompt_token_ids) if request.prompt_logprobs else 0
    check_prompt_logprobs(num_prompt, num_top)
    return Scoring(num_top, num_prompt)


def _check_something_is_left(
    request: router_pb2.SequenceRequest,
    sampling: Sampling,
    stop_token_ids: frozenset[int],
    vocab_size: int,
) -> None:
    if request.min_new_tokens > request.max_new_tokens:
        raise InvalidRequest(
            f"min_new_tokens is {request.min_new_tokens}; max_new_tokens is "
            f"{request.max_new_tokens}"
        )
    if request.min_new_tokens and stop_token_ids.issuperset(
        sampling.allowed_token_ids or range(vocab_size)
    ):
        raise InvalidRequest("min_new_tokens: every token that may be drawn ends the sequence")


def _check_vocabulary(field: str, token_ids: tuple[int, ...], vocab_size: int) -> None:
    largest = max(token_ids, default=0)
    if largest >= vocab_size:
        raise InvalidRequest(f"{field} has {largest}; the vocabulary ends at {vocab_size - 1}")


def _trace_detail(number: int) -> TraceDetail:
    try:
        return TraceDetail(number)
    except ValueError as error:
        raise InvalidRequest(
            f"trace_detail is {number}; it must be from 0 to {max(TraceDetail)}"
        ) from error
