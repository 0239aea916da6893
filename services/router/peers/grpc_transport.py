"""The transport of a stream over gRPC: the Dispatch call of expert.proto."""

import grpc

from services.router.peers.transport import DISPATCH, Receive
from services.runtime.calls import as_serving_errors
from services.wire.errors import Unavailable


class GrpcTransport:
    """One call, begun at once; its messages are not parsed here. `name` names the service in
    errors.
    """

    kind = "gRPC"
    native = None

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._call: grpc.aio.StreamStreamCall = channel.stream_stream(DISPATCH)()
        self._name = name

    def attend(self) -> None:
        """Nothing is ever left: no exchange uses it."""

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
