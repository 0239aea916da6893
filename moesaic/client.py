"""A client that goes on with a generation when its gateway is lost: at another one, or at the same
one again. It needs grpcio and the stubs beside it, and nothing else.
"""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import grpc

from moesaic.v1.generation_pb2 import GenerateRequest, GenerateResponse
from moesaic.v1.generation_pb2_grpc import GenerationServiceStub

MAX_TRIES = 12
FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 2.0
# A gateway that hangs is noticed within ten seconds.
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
)
# The gateway, or what is between, is gone.
LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


class GatewayLost(Exception):
    """The gateway cancelled the call, and so did every other that was tried."""


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to a gateway, without TLS."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


async def generate(
    request: GenerateRequest,
    gateways: Sequence[str],
    *,
    timeout_seconds: float = 600.0,
    max_tries: int = MAX_TRIES,
    max_first_tries: int | None = None,
    metadata: Sequence[tuple[str, str]] = (),
    connect: Callable[[str], grpc.aio.Channel] = open_channel,
) -> AsyncGenerator[GenerateResponse, None]:
    """The responses to a request, as if they all came of one stream: deltas, then a completion.

    When a gateway is lost the next one goes on after the last token that came, after growing
    pauses. It makes at most `max_tries` in a row without a message, and before the first message at
    most `max_first_tries` where that is given. `connect` opens a channel to a gateway. Raises the
    last try's AioRpcError, or GatewayLost.
    """
    continuing = _Continuing(request)
    first_tries = max_tries if max_first_tries is None else max_first_tries
    ends_at = time.monotonic() + timeout_seconds
    number = num_failures = 0
    while True:
        try:
            async with connect(gateways[number % len(gateways)]) as channel:
                stub: Any = GenerationServiceStub(channel)
                left = max(0.001, ends_at - time.monotonic())
                call = stub.Generate(continuing.request, timeout=left, metadata=metadata)
                try:
                    while (response := await _read(call)) is not grpc.aio.EOF:
                        num_failures = 0
                        continuing.note(response)
                        yield response
                    return
                finally:
                    call.cancel()
        except (grpc.aio.AioRpcError, GatewayLost) as error:
            number, num_failures = number + 1, num_failures + 1
            tries = max_tries if continuing.has_begun else first_tries
            if num_failures >= tries or not continuing.can_go_on_after(error):
                raise
        pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**num_failures)
        await asyncio.sleep(random.uniform(pause / 2, pause))


class _Continuing:
    """A request that knows how far it is."""

    def __init__(self, request: GenerateRequest) -> None:
        self.request = GenerateRequest()
        self.request.CopyFrom(request)
        self.request.request_id = self.request.request_id or uuid.uuid4().hex
        self.has_begun = False
        self._is_resumable = request.HasField("resume")

    def note(self, response: GenerateResponse) -> None:
        """A message came."""
        self.has_begun = True
        # Of several choices none can go on alone.
        if response.HasField("started") and self.request.num_choices <= 1:
            self._is_resumable = True
            self.request.resume.seed = response.started.seed
            self.request.stop.max_new_tokens = response.started.max_new_tokens
        if self._is_resumable:
            self.request.resume.generated_token_ids.extend(response.delta.token_ids)

    def can_go_on_after(self, error: Exception) -> bool:
        """Whether it is worth another try: not where the gateway refuses it, or knows no resuming.

        One that was accepted before may find the next gateway full for a moment.
        """
        if self.has_begun and not self._is_resumable:
            return False
        if not isinstance(error, grpc.aio.AioRpcError):
            return True
        is_full = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        return error.code() in LOST or (is_full and self.has_begun)


async def _read(call: Any) -> Any:
    """The next response of a call; a call that its server cancels raises GatewayLost, where
    grpc.aio would have the task look cancelled.
    """
    try:
        return await call.read()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise GatewayLost("the gateway cancelled the call") from error
