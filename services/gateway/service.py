"""GenerationService: translates protobuf, nothing else."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from moesaic.v1 import generation_pb2 as pb
from moesaic.v1.generation_pb2_grpc import (
    GenerationServiceServicer,
    add_GenerationServiceServicer_to_server,
)
from services.gateway.caller import Caller
from services.gateway.checkpoint import TextCheckpoint
from services.gateway.clients import Clients
from services.gateway.generation import Completed, Generation
from services.gateway.outside import said_outside
from services.gateway.relay import Piece
from services.gateway.requests import RequestReader
from services.gateway.routers import Routers
from services.runtime.span_writing import SpanRef

# As W3C Trace Context names it, over HTTP a header.
TRACE_RESPONSE = "traceresponse"


class GenerationService(GenerationServiceServicer):
    """The public interface, on top of a `Generation`."""

    def __init__(
        self,
        checkpoint: TextCheckpoint,
        reader: RequestReader,
        generation: Generation,
        routers: Routers,
        clients: Clients,
        *,
        default_timeout_seconds: float,
        max_timeout_seconds: float,
    ) -> None:
        self._checkpoint = checkpoint
        self._reader = reader
        self._generation = generation
        self._routers = routers
        self._clients = clients
        self._default_timeout_seconds = default_timeout_seconds
        self._max_timeout_seconds = max_timeout_seconds

    def register(self, server: grpc.aio.Server) -> None:
        """Serve this on `server`."""
        add: Any = add_GenerationServiceServicer_to_server
        add(self, server)

    def max_request_bytes(self) -> int:
        """Of any request that can be served, by what is known now."""
        return self._reader.max_request_bytes()

    async def Generate(
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GenerateResponse]:
        started: list[pb.Started] = []  # until the first message, which takes it along

        def tell(trace: SpanRef) -> None:  # to who is refused, too, and has no message to read
            context.set_trailing_metadata(((TRACE_RESPONSE, trace.traceparent),))

        events = self._generation.run(
            request, self._caller(context), started.append, note_trace=tell
        )
        async with aclosing(events):
            with said_outside():
                async for event in events:
                    if isinstance(event, Piece):
                        response = _delta(event)
                    else:
                        response = pb.GenerateResponse(completion=_completion(event))
                    if event.choice:
                        response.choice = event.choice
                    if started:
                        response.started.CopyFrom(started.pop())
                    yield response

    async def GetModel(
        self, request: pb.GetModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelResponse:
        self._reader.check_model(request.model)
        with said_outside():
            router, limits = self._routers.description, self._routers.limits
        return pb.GetModelResponse(
            model=self._checkpoint.name,
            model_type=router.model_type,
            vocab_size=router.vocab_size,
            max_context=limits.max_context,
            default_max_new_tokens=limits.default_max_new_tokens,
            eos_token_ids=self._checkpoint.eos_token_ids,
            has_chat_template=self._checkpoint.has_chat_template,
            num_moe_layers=router.num_moe_layers,
            num_experts=router.num_experts,
            num_experts_per_token=router.num_experts_per_token,
            numerics_fingerprint=router.numerics_fingerprint,
        )

    async def Tokenize(
        self, request: pb.TokenizeRequest, context: grpc.aio.ServicerContext
    ) -> pb.TokenizeResponse:
        with said_outside():
            self._reader.check_model(request.model)
            prompt = self._reader.prompt(request)
            token_ids = await self._generation.tokenise(prompt, self._caller(context))
        return pb.TokenizeResponse(token_ids=token_ids)

    async def Detokenize(
        self, request: pb.DetokenizeRequest, context: grpc.aio.ServicerContext
    ) -> pb.DetokenizeResponse:
        with said_outside():
            self._reader.check_model(request.model)
            text = await self._generation.detokenise(request.token_ids, self._caller(context))
        return pb.DetokenizeResponse(text=text)

    def _caller(self, context: grpc.aio.ServicerContext) -> Caller:
        return Caller.from_context(
            context,
            self._clients,
            default_timeout_seconds=self._default_timeout_seconds,
            max_timeout_seconds=self._max_timeout_seconds,
        )


def _delta(piece: Piece) -> pb.GenerateResponse:
    # Filled in place: a delta that is made apart is copied, and this runs for each token.
    response = pb.GenerateResponse()
    delta = response.delta
    delta.text = piece.text
    delta.token_ids.extend(piece.token_ids)
    if piece.routed_experts:
        delta.routed_experts.extend(piece.routed_experts)
    if piece.logprobs:
        delta.logprobs.extend(piece.logprobs)
        delta.prompt_logprobs.extend(piece.prompt_logprobs)
    return response


def _completion(completed: Completed) -> pb.Completion:
    return pb.Completion(
        finish_reason=completed.reason,
        stop_string=completed.stop_string,
        usage=completed.usage,
        receipt=completed.receipt,
    )
