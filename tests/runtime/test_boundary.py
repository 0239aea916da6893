"""What a caller sees when a handler fails."""

from collections.abc import AsyncIterator

import grpc
import pytest

from moesaic.v1 import expert_pb2, expert_pb2_grpc, generation_pb2, generation_pb2_grpc
from services.runtime.server import MAX_MESSAGE_BYTES, serving
from services.wire.errors import BY_STATUS, NotFound, Overloaded, ServingError

GENERATE = "/moesaic.v1.GenerationService/Generate"
TOKENIZE = "/moesaic.v1.GenerationService/Tokenize"
DISPATCH = "/moesaic.v1.ExpertService/Dispatch"


class Failing(generation_pb2_grpc.GenerationServiceServicer, expert_pb2_grpc.ExpertServiceServicer):
    """Raises in every kind of call."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def Tokenize(
        self, request: generation_pb2.TokenizeRequest, context: grpc.aio.ServicerContext
    ) -> generation_pb2.TokenizeResponse:
        raise self.error

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        yield generation_pb2.GenerateResponse(delta=generation_pb2.Delta(text="once"))
        raise self.error

    async def Dispatch(
        self, requests: AsyncIterator[expert_pb2.DispatchRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[expert_pb2.DispatchResponse]:
        async for _ in requests:
            yield expert_pb2.DispatchResponse(granted_pairs=1)
        raise self.error


@pytest.fixture
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[grpc.aio.Channel]:
    failing = Failing(getattr(request, "param", ServingError("broken")))

    def register(server: grpc.aio.Server) -> None:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(failing, server)
        expert_pb2_grpc.add_ExpertServiceServicer_to_server(failing, server)

    async with (
        serving(register, listen="127.0.0.1:0", service_names=[], drain_seconds=0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


async def failure(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    async def whole() -> None:
        if not hasattr(call, "__aiter__"):
            await call
            return
        async for _ in call:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await whole()
    return raised.value


ERRORS = [error("what the caller should know") for error in (ServingError, *BY_STATUS.values())]


@pytest.mark.parametrize("channel", ERRORS, indirect=True, ids=lambda error: type(error).__name__)
async def test_a_serving_error_is_its_status_in_every_kind_of_call(
    channel: grpc.aio.Channel,
) -> None:
    error = await failure(channel.unary_unary(TOKENIZE)(b"", timeout=5))
    streamed = await failure(channel.unary_stream(GENERATE)(b"", timeout=5))
    conversed = await failure(channel.stream_stream(DISPATCH)(iter([b""]), timeout=5))
    assert error.code() == streamed.code() == conversed.code()
    assert error.code() in {*BY_STATUS, ServingError.status}
    assert (
        error.details()
        == streamed.details()
        == conversed.details()
        == "what the caller should know"
    )


LONG = [
    "x" * 20_000,
    "é" * 4_000,
    "😀" * 4_000,
    "%" * 9_000,
    "\r\n" * 9_000,
    "\x1b[2J" * 4_000,
    "\ud800" * 4_000,
]


@pytest.mark.parametrize(
    "channel", [NotFound(f"there is no {text}") for text in LONG], indirect=True
)
async def test_a_refusal_keeps_its_status_however_long_the_text_it_quotes(
    channel: grpc.aio.Channel,
) -> None:
    for call in (
        channel.unary_unary(TOKENIZE)(b"", timeout=5),
        channel.unary_stream(GENERATE)(b"", timeout=5),
        channel.stream_stream(DISPATCH)(iter([b""]), timeout=5),
    ):
        error = await failure(call)
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert (error.details() or "").startswith("there is no ")
        assert (error.details() or "").isprintable()


@pytest.mark.parametrize(
    "channel",
    [Overloaded("full", retry_after_seconds=each) for each in (float("inf"), float("nan"))],
    indirect=True,
)
async def test_an_odd_retry_delay_leaves_the_status_as_it_is(channel: grpc.aio.Channel) -> None:
    error = await failure(channel.unary_unary(TOKENIZE)(b"", timeout=5))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("retry-after-ms", "3600000") in tuple(error.trailing_metadata() or ())


@pytest.mark.parametrize("channel", [Overloaded("full", retry_after_seconds=1.5)], indirect=True)
async def test_the_retry_delay_travels_in_the_trailing_metadata(channel: grpc.aio.Channel) -> None:
    error = await failure(channel.unary_unary(TOKENIZE)(b"", timeout=5))
    assert ("retry-after-ms", "1500") in tuple(error.trailing_metadata() or ())


@pytest.mark.parametrize("channel", [KeyError("secret")], indirect=True)
async def test_an_unforeseen_failure_is_internal_and_keeps_its_details_in_the_log(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    error = await failure(channel.unary_stream(GENERATE)(b"", timeout=5))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")
    assert "secret" in caplog.text


class Panic(BaseException):
    """What compiled libraries raise: no Exception."""


@pytest.mark.parametrize("channel", [Panic("secret")], indirect=True)
async def test_a_panic_of_a_compiled_library_is_internal_and_the_next_call_is_served(
    channel: grpc.aio.Channel,
) -> None:
    for call in (
        channel.unary_unary(TOKENIZE)(b"", timeout=5),
        channel.unary_stream(GENERATE)(b"", timeout=5),
        channel.stream_stream(DISPATCH)(iter([b""]), timeout=5),
    ):
        assert (await failure(call)).code() == grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    "payload", [b"\x0a\x02\xff\xfe", b"\x0a\x7f", b"\xff"], ids=["no UTF-8", "cut", "no tag"]
)
async def test_bytes_that_are_no_message_are_the_callers_fault(
    channel: grpc.aio.Channel, payload: bytes
) -> None:
    for call in (
        channel.unary_unary(TOKENIZE)(payload, timeout=5),
        channel.unary_stream(GENERATE)(payload, timeout=5),
        channel.stream_stream(DISPATCH)(iter([payload]), timeout=5),
    ):
        assert (await failure(call)).code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_above_the_limit_is_refused(channel: grpc.aio.Channel) -> None:
    error = await failure(channel.unary_unary(TOKENIZE)(bytes(MAX_MESSAGE_BYTES + 1), timeout=20))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
