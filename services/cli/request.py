"""One request of the command line to a gateway: sent, streamed, and summed up."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import grpc

from moesaic.client import GatewayLost, generate
from moesaic.v1 import common_pb2, generation_pb2
from services.cli.chat_flags import say_chat
from services.cli.failed_calls import words_of
from services.cli.result_flags import say_results
from services.cli.sampling_flags import say_sampling
from services.cli.settings import GenerateSettings
from services.runtime.channels import open_channel
from services.runtime.span_writing import SpanKind, SpanRef
from services.runtime.tls_files import Authority, TlsFiles
from services.runtime.tracing import begin_span, passed_on
from services.wire.errors import ServingError


class RequestFailed(ServingError):
    """The gateway ended the request with a status; the message has both."""


class CallSettings(Protocol):
    """How the gateway is called, whatever it is asked."""

    @property
    def timeout(self) -> float: ...
    @property
    def metadata(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def verbose(self) -> bool: ...
    @property
    def gateway_trust(self) -> TlsFiles | Authority | None: ...


@dataclass
class GenerateResult:
    """What came back, and when: nanoseconds from sending the request to the first and the last
    token.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    first_token_nanos: int | None = None
    last_token_nanos: int | None = None
    completion: generation_pb2.Completion = field(default_factory=generation_pb2.Completion)
    logprobs: list[common_pb2.PositionLogprobs] = field(default_factory=list)
    prompt_logprobs: list[common_pb2.PositionLogprobs] = field(default_factory=list)
    routed_experts: list[common_pb2.RoutedExperts] = field(default_factory=list)
    # Of the request's other choices, in their order.
    others: "list[GenerateResult]" = field(default_factory=list)

    @property
    def finish_reason(self) -> str:
        """`stop` or `length`."""
        return finish_reason_of(self.completion)

    @property
    def tokens_per_second(self) -> float | None:
        """The rate after the first token; None where there was only one moment to measure."""
        if self.first_token_nanos is None or self.last_token_nanos == self.first_token_nanos:
            return None
        assert self.last_token_nanos is not None
        return (len(self.token_ids) - 1) / (self.last_token_nanos - self.first_token_nanos) * 1e9


def build_request(settings: GenerateSettings, prompt: str) -> generation_pb2.GenerateRequest:
    """The message that asks for what the flags say; what they leave out is left to the server.

    Raises InvalidRequest for files that hold something else than they should.
    """
    request = generation_pb2.GenerateRequest()
    if settings.chat:
        say_chat(request.chat, settings, prompt)
    else:
        request.text = prompt
    say_sampling(request, settings)
    say_results(request, settings)
    if settings.max_new_tokens is not None:
        request.stop.max_new_tokens = settings.max_new_tokens
    request.stop.stop_strings.extend(settings.stop)
    request.stop.ignore_eos = settings.ignore_eos
    if settings.tracing:  # one request that is looked at, where a service by itself samples
        request.trace_detail = common_pb2.TRACE_DETAIL_LAYER
    return request


def finish_reason_of(completion: generation_pb2.Completion) -> str:
    """`stop` or `length`."""
    return (
        common_pb2.FinishReason.Name(completion.finish_reason)
        .removeprefix("FINISH_REASON_")
        .lower()
    )


async def stream(
    addresses: Sequence[str],
    request: generation_pb2.GenerateRequest,
    settings: CallSettings,
    write: Callable[[str], None],
    *,
    parent: SpanRef | None = None,
) -> GenerateResult:
    """Send the request to the first address and `write` the text as it comes, of the first choice;
    where its gateway is lost the next one goes on, or the same again. Its trace goes on below
    `parent` where there is one.

    Raises RequestFailed when a gateway refuses it, or none goes on.
    """
    outcome = GenerateResult(others=[GenerateResult() for _ in range(1, request.num_choices)])
    span = begin_span("moesaic.generate", SpanKind.CLIENT, parent)
    context = passed_on(span, parent)
    traced = () if context is None else (("traceparent", context.traceparent),)
    failure: BaseException | None = None
    responses = generate(
        request,
        addresses,
        timeout_seconds=settings.timeout,
        max_first_tries=len(addresses),  # who mistyped the address is told so at once
        metadata=(*traced, *settings.metadata),
        connect=partial(open_channel, tls=settings.gateway_trust),
    )
    try:
        async with aclosing(responses):
            await _collect(responses, outcome, write)
    except grpc.aio.AioRpcError as error:
        words = await words_of(error, "gateway", addresses[-1], verbose=settings.verbose)
        failure = RequestFailed(words)
        raise failure from error
    except GatewayLost as error:
        failure = RequestFailed(f"CANCELLED: {error}")
        raise failure from error
    except BaseException as error:
        failure = error
        raise
    finally:
        if span is not None:
            span.end(None if failure is None else str(failure))
    return outcome


async def _collect(
    responses: AsyncIterator[generation_pb2.GenerateResponse],
    outcome: GenerateResult,
    write: Callable[[str], None],
) -> None:
    sent = time.monotonic_ns()
    choices = [outcome, *outcome.others]
    async for response in responses:
        choice = choices[response.choice]
        if response.HasField("completion"):
            choice.completion = response.completion
            continue
        delta = response.delta
        if delta.token_ids:
            choice.last_token_nanos = time.monotonic_ns() - sent
            choice.first_token_nanos = choice.first_token_nanos or choice.last_token_nanos
        choice.token_ids.extend(delta.token_ids)
        choice.logprobs.extend(delta.logprobs)
        choice.prompt_logprobs.extend(delta.prompt_logprobs)
        choice.routed_experts.extend(delta.routed_experts)
        choice.text += delta.text
        if choice is outcome:
            write(delta.text)
    if not all(choice.completion.finish_reason for choice in choices):
        raise RequestFailed("INTERNAL: the stream ended without a completion")
