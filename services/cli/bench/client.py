"""The client of a load: sends a request and notes when its tokens come, at little cost for each."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from moesaic.v1 import generation_pb2, generation_pb2_grpc
from services.cli.bench.failures import RequestsFailed
from services.cli.bench.prompts import TOKENIZE_SECONDS, BenchPrompt
from services.cli.bench.sample import NANOS_PER_SECOND, RequestFailure, Sample
from services.cli.bench.settings import BenchSettings
from services.cli.failed_calls import words_of
from services.cli.sampling_flags import say_sampling
from services.wire.quoting import peers_words
from services.wire.sampling import MAX_SEED

RETRY_AFTER = "retry-after-ms"
DESCRIBE_SECONDS = 10.0
# A request that is due no longer is still sent, and refused by gRPC itself.
LEAST_TIMEOUT_SECONDS = 0.001


class Client(Protocol):
    """Sends the requests of a load, and tells of the server what a bench has to know."""

    prompts: Sequence[BenchPrompt]

    @property
    def num_tokens(self) -> int:
        """Tokens that came so far, of all requests."""

    async def describe(self) -> generation_pb2.GetModelResponse:
        """What is served; raises RequestsFailed where there is no answer."""

    async def tokenise(self, text: str) -> Sequence[int]:
        """Token ids of a text; raises RequestsFailed where there is no answer."""

    async def send(self, sample: Sample) -> None:
        """Send the request of the sample's number, and write into the sample what comes of it."""


class LoadClient:
    """Sends the requests of a load over one connection, each with what is left of its time as its
    deadline.
    """

    def __init__(
        self, channel: grpc.aio.Channel, settings: BenchSettings, prompts: Sequence[BenchPrompt]
    ) -> None:
        self.stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        self._settings = settings
        self._metadata = settings.metadata or None
        self.prompts = prompts
        self._num_tokens = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that came so far, of all requests."""
        return self._num_tokens

    async def describe(self) -> generation_pb2.GetModelResponse:
        """What the gateway serves; raises RequestsFailed when it does not answer."""
        response: generation_pb2.GetModelResponse = await self._answer(
            self.stub.GetModel, generation_pb2.GetModelRequest(), DESCRIBE_SECONDS
        )
        return response

    async def tokenise(self, text: str) -> Sequence[int]:
        """Token ids of a text; raises RequestsFailed when the gateway does not answer."""
        request = generation_pb2.TokenizeRequest(text=text)
        response = await self._answer(self.stub.Tokenize, request, TOKENIZE_SECONDS)
        return [*response.token_ids]

    async def send(self, sample: Sample) -> None:
        """Send the request of the sample's number, and write into the sample what comes of it."""
        request = build_request(
            self._settings, self.prompts[sample.number % len(self.prompts)], sample.number
        )
        waited_seconds = (time.monotonic_ns() - sample.due_nanos) / NANOS_PER_SECOND
        timeout_seconds = max(LEAST_TIMEOUT_SECONDS, self._settings.timeout - waited_seconds)
        call = self.stub.Generate(request, timeout=timeout_seconds, metadata=self._metadata)
        try:
            await self._read(call, sample)
        except grpc.aio.AioRpcError as error:
            sample.failure = failure_of(error)
        finally:
            call.cancel()
        sample.ended_nanos = time.monotonic_ns()

    async def _answer(self, call: Any, request: Message, seconds: float) -> Any:
        try:
            return await call(request, timeout=seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise RequestsFailed(await self._words_of(error)) from error

    async def _words_of(self, error: grpc.aio.AioRpcError) -> str:
        settings = self._settings
        if settings.address is None:  # a cluster of its own
            return f"{error.code().name}: {peers_words(error.details() or '')}"
        return await words_of(error, "gateway", settings.address, verbose=settings.verbose)

    async def _read(self, call: Any, sample: Sample) -> None:
        read, now = call.read, time.monotonic_ns
        arrivals, counts = sample.arrival_nanos, sample.arrival_tokens
        while (response := await read()) is not grpc.aio.EOF:
            # Nothing else of a delta is looked at: this runs for each token.
            count = len(response.delta.token_ids)
            if count:
                arrivals.append(now())
                counts.append(count)
                self._num_tokens += count
            elif response.HasField("completion"):
                sample.completion = response.completion
        if sample.completion is None:
            sample.failure = RequestFailure("INTERNAL", "the stream ended without a completion")


def build_request(
    settings: BenchSettings, prompt: BenchPrompt, number: int
) -> generation_pb2.GenerateRequest:
    """The message for a prompt; what neither its line nor the settings say is left to
    the server.
    """
    request = generation_pb2.GenerateRequest()
    if prompt.token_ids is not None:
        request.token_ids.ids.extend(prompt.token_ids)
    else:
        request.text = prompt.text
    say_sampling(request, settings)
    request.sampling.seed = (settings.seed + number) & MAX_SEED
    request.stop.max_new_tokens = prompt.max_new_tokens or settings.max_new_tokens
    request.stop.ignore_eos = settings.ignore_eos
    return request


def failure_of(error: grpc.aio.AioRpcError) -> RequestFailure:
    """A failed call's status, message and, where the gateway said it, when to try again."""
    trailing = {str(key): value for key, value in error.trailing_metadata() or ()}
    millis = trailing.get(RETRY_AFTER)
    retry_after_seconds = (
        int(millis) / 1000 if isinstance(millis, str) and millis.isdecimal() else None
    )
    return RequestFailure(
        error.code().name, peers_words(error.details() or ""), retry_after_seconds
    )
