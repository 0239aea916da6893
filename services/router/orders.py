"""Checks a gateway's sequence request and turns it into an order."""

from moesaic.v1 import router_pb2
from services.router.engine.sequence import Order, TraceDetail
from services.runtime.span_writing import SpanRef
from services.wire.errors import InvalidRequest
from services.wire.sampling import read_complete_sampling


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
    trace = request.trace
    return Order(
        # What was generated is known as a prompt is: each draw depends on its position alone, and
        # a repetition penalty counts both.
        prompt=prompt + generated,
        sampling=read_complete_sampling(request.sampling),
        max_new_tokens=request.max_new_tokens - len(generated),
        stop_token_ids=frozenset(request.stop_token_ids),
        return_routed_experts=request.return_routed_experts,
        trace_parent=SpanRef.parse(trace.traceparent, trace.tracestate),
        trace_detail=_trace_detail(request.trace_detail),
    )


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
