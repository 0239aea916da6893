"""The boundary of every server: callers are let in, requests parsed, and errors become statuses
here, and nowhere else.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from services.runtime.access import Access, Admit, admission
from services.runtime.doorkeeping import Doorkeeper
from services.runtime.failures import failure_of, flatten_group
from services.wire.errors import InvalidRequest, ServingError

Parse = Callable[[bytes], Any]
# A handler of a stream yields its responses, or writes them to its context.
Streaming = Callable[..., AsyncGenerator[Any, None] | Awaitable[None]]

# No failures of a handler. Whatever else is no Exception is one: compiled libraries raise their
# panics so.
PASSED_ON = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
MAX_RETRY_SECONDS = 3600.0


class ErrorsToStatus(grpc.aio.ServerInterceptor):
    """Raises every ServingError of a handler as its status, and anything unforeseen as INTERNAL.

    Requests are parsed inside the boundary too, so that bytes which are no message (text that is no
    UTF-8, say) are the caller's fault: INVALID_ARGUMENT. Handlers without a parser keep receiving
    raw bytes. Before that a `doorkeeper` is asked, where this server hears of a call; whom `access`
    does not let in gets no further.
    """

    def __init__(self, access: Access | None = None, doorkeeper: Doorkeeper | None = None) -> None:
        self._access = access
        self._doorkeeper = doorkeeper

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        behind = guarded(handler, admission(self._access, method))
        return behind if self._doorkeeper is None else _kept(behind, self._doorkeeper, method)


def guarded(handler: grpc.RpcMethodHandler, admit: Admit) -> grpc.RpcMethodHandler:
    """The handler behind this boundary: it takes requests as bytes, and streams are written to the
    context. `admit` raises where a call is not let in.
    """
    parse = handler.request_deserializer or bytes
    serialise = handler.response_serializer
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(
            _answer(handler.unary_unary, parse, admit), None, serialise
        )
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(
            _stream(handler.unary_stream, parse, admit), None, serialise
        )
    if handler.stream_stream:
        return grpc.stream_stream_rpc_method_handler(
            _converse(handler.stream_stream, parse, admit), None, serialise
        )
    return handler


def retry_after(failure: ServingError) -> tuple[tuple[str, str], ...]:
    """The trailing metadata that says when to come back, where the failure says so."""
    if failure.retry_after_seconds is None:
        return ()
    seconds = max(0.0, min(MAX_RETRY_SECONDS, failure.retry_after_seconds))
    return (("retry-after-ms", str(round(seconds * 1000))),)


def _kept(
    handler: grpc.RpcMethodHandler, doorkeeper: Doorkeeper, method: str
) -> grpc.RpcMethodHandler:
    def behind(behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def begin(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                leave = doorkeeper.admit(method, context)
            except ServingError as error:
                await _abort(context, error)
            try:
                return await behaviour(request, context)
            finally:
                leave()

        return begin

    serialise = handler.response_serializer
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(behind(handler.unary_unary), None, serialise)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(behind(handler.unary_stream), None, serialise)
    return grpc.stream_stream_rpc_method_handler(behind(handler.stream_stream), None, serialise)


def _answer(
    behaviour: Callable[..., Awaitable[Any]], parse: Parse, admit: Admit
) -> Callable[..., Awaitable[Any]]:
    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> Any:
        try:
            admit(context)
            return await behaviour(_parsed(request, parse), context)
        except PASSED_ON:
            raise
        except BaseException as error:  # noqa: BLE001 -- the boundary: whatever it is becomes a status
            await _abort(context, error)

    return answer


def _stream(behaviour: Streaming, parse: Parse, admit: Admit) -> Callable[..., Awaitable[None]]:
    async def stream(request: bytes, context: grpc.aio.ServicerContext) -> None:
        try:
            admit(context)
            await _write_all(behaviour(_parsed(request, parse), context), context)
        except PASSED_ON:
            raise
        except BaseException as error:  # noqa: BLE001 -- the boundary: whatever it is becomes a status
            await _abort(context, error)

    return stream


def _converse(behaviour: Streaming, parse: Parse, admit: Admit) -> Callable[..., Awaitable[None]]:
    async def converse(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        # A generator around requests that nobody parses would cost something at each of them.
        try:
            admit(context)
            received = (
                requests
                if parse is bytes
                else (_parsed(request, parse) async for request in requests)
            )
            await _write_all(behaviour(received, context), context)
        except PASSED_ON:
            raise
        except BaseException as error:  # noqa: BLE001 -- the boundary: whatever it is becomes a status
            await _abort(context, error)

    return converse


async def _write_all(
    responses: AsyncGenerator[Any, None] | Awaitable[None], context: grpc.aio.ServicerContext
) -> None:
    if isinstance(
        responses, Awaitable
    ):  # a handler that writes for itself, as the health service's Watch does
        await responses
        return
    # A handler that yields is closed here, in the task it ran in, however the call ends: its
    # `finally` blocks and task groups work. Left to grpc it would be closed by the garbage
    # collector, somewhere else.
    async with aclosing(responses):
        async for response in responses:
            try:
                await context.write(response)
            except (
                grpc.aio.InternalError
            ) as error:  # the client left: nobody failed, and nobody can be told
                raise asyncio.CancelledError from error


def _parsed(request: bytes, parse: Parse) -> Any:
    try:
        return parse(request)
    except (DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            "the request is not a valid message of its type; text fields must be UTF-8"
        ) from error


async def _abort(context: grpc.aio.ServicerContext, error: BaseException) -> NoReturn:
    if isinstance(first := flatten_group(error)[0], grpc.aio.AbortError):
        raise first
    failure = failure_of(error, "the call")
    told = context.trailing_metadata() or ()
    await context.abort(failure.status, str(failure), (*told, *retry_after(failure)))
    raise AssertionError("unreachable: abort raises")
