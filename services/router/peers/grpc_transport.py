"""The transport of a stream over gRPC: the Dispatch call of expert.proto."""

import grpc

from services.router.peers.transport import DISPATCH
from services.runtime.grpc_calls import GrpcCall


class GrpcTransport(GrpcCall):
    """One call, begun at once; its messages are not parsed here. `name` names the service in
    errors.
    """

    kind = "gRPC"
    native = None

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        super().__init__(channel, DISPATCH, name)

    def attend(self) -> None:
        """Nothing is ever left: no exchange uses it."""
