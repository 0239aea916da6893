"""Checks a gateway's sequence request and turns it into an order."""

import math

from moesaic.v1 import common_pb2, router_pb2
from services.model.sampler import Sampling
from services.router.engine.sequence import Order, TraceDetail
from services.runtime.span_writing import SpanRef
from services.wire.errors import InvalidRequest

MAX_TEMPERATURE = 100.0
MAX_PENALTY = 100.0


def order_of(request: router_pb2.SequenceRequest, vocab_size: int) -> Order:
    """The order that a request stands for.

    Raises InvalidRequest, naming the field and the limit.
    """
    prompt = tuple(request.prompt_token_ids)
    if not prompt:
        raise InvalidRequest("prompt_token_ids is empty")
    if max(prompt) >= vocab_size:
        raise InvalidRequest(
            f"prompt_token_ids has {max(prompt)}; the vocabulary ends at {vocab_size - 1}"
        )
    if request.max_new_tokens < 1:
        raise InvalidRequest("max_new_tokens is 0; it must be at least 1")
    trace = request.trace
    return Order(
        prompt=prompt,
        sampling=_sampling(request.sampling),
        max_new_tokens=request.max_new_tokens,
        stop_token_ids=frozenset(request.stop_token_ids),
        return_routed_experts=request.return_routed_experts,
        trace_parent=SpanRef.parse(trace.traceparent, trace.tracestate),
        trace_detail=_trace_detail(request.trace_detail),
    )


def _trace_detail(number: int) -> TraceDetail:
    try:
        return TraceDetail(number)
    except ValueError as error:
        raise InvalidRequest(
            f"trace_detail is {number}; it must be from 0 to {max(TraceDetail)}"
        ) from error


def _sampling(parameters: common_pb2.SamplingParameters) -> Sampling:
    for field in ("temperature", "top_k", "top_p", "min_p", "seed"):
        if not parameters.HasField(field):
            raise InvalidRequest(f"sampling.{field} is not set")
    sampling = Sampling(
        parameters.temperature,
        parameters.top_k,
        parameters.top_p,
        parameters.min_p,
        parameters.seed,
        parameters.repetition_penalty if parameters.HasField("repetition_penalty") else 1.0,
    )
    _check(
        "temperature",
        sampling.temperature,
        0.0 <= sampling.temperature <= MAX_TEMPERATURE,
        "from 0 to 100",
    )
    _check("top_p", sampling.top_p, 0.0 < sampling.top_p <= 1.0, "above 0 and at most 1")
    _check("min_p", sampling.min_p, 0.0 <= sampling.min_p <= 1.0, "from 0 to 1")
    penalty = sampling.repetition_penalty
    _check("repetition_penalty", penalty, 0.0 < penalty <= MAX_PENALTY, "above 0 and at most 100")
    return sampling


def _check(field: str, value: float, is_allowed: bool, allowed: str) -> None:
    if not is_allowed or not math.isfinite(value):
        raise InvalidRequest(f"sampling.{field} is {value}; it must be {allowed}")
