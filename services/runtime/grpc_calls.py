"""Calls to a service by gRPC's own library."""

import grpc

from services.runtime.calls import as_serving_errors
from services.runtime.service_calls import Receive, ServiceCall
from services.wire.errors import Unavailable


class GrpcCall:
    """A call, begun at once; its messages are not parsed here. `name` names the service in
    errors.
    """

    def __init__(self, channel: grpc.aio.Channel, path: str, name: str) -> None:
        self._call: grpc.aio.StreamStreamCall = channel.stream_stream(path)()
        self._name = name

    def try_send(self, message: bytes) -> bool:
        """Not without waiting: gRPC writes from a task alone."""
        return False

    async def send(self, message: bytes) -> None:
        """Write it, as soon as flow control lets it through."""
        try:
            await self._call.write(message)
        except BaseException:
            # Entered only now, since to enter it costs more than all else here does for a message.
            with as_serving_errors(self._name):
                raise

    async def deliver(self, receive: Receive) -> None:
        """Read until the call ends."""
        with as_serving_errors(self._name):
            while (message := await self._call.read()) is not grpc.aio.EOF:
                receive(message, None)
        raise Unavailable(f"{self._name} ended the stream")

    def close(self) -> None:
        """Cancel the call."""
        self._call.cancel()


class GrpcConnection:
    """A channel, which whoever opened it closes. `name` names the service in errors."""

    kind = "gRPC"

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._channel = channel
        self._name = name

    async def ask(self, path: str, request: bytes, *, timeout_seconds: float) -> bytes:
        """Call a method that answers once."""
        with as_serving_errors(self._name):
            answer: bytes = await self._channel.unary_unary(path)(request, timeout=timeout_seconds)
        return answer

    def call(self, path: str) -> ServiceCall:
        """Begin a call."""
        return GrpcCall(self._channel, path, self._name)
