"""Serves `moesaic.v1.RouterService`; translates protobuf, nothing else."""

from collections.abc import AsyncGenerator, AsyncIterator

import grpc

from moesaic.v1 import router_pb2, router_pb2_grpc
from services.router.placement_service import PlacementService
from services.router.session import Session

SERVICE_NAME = "moesaic.v1.RouterService"


class RouterService(PlacementService, router_pb2_grpc.RouterServiceServicer):
    """Answers UNAVAILABLE until the router is ready.

    What it inherits of PlacementService are calls that it had before there was that service, and
    that are deprecated.
    """

    async def Describe(
        self, request: router_pb2.RouterServiceDescribeRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.RouterServiceDescribeResponse:
        return self._running().description

    def Run(
        self,
        request_iterator: AsyncIterator[router_pb2.RunRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncGenerator[router_pb2.RunResponse, None]:
        running = self._running()
        return Session(running.engine, running.description.vocab_size).run(request_iterator)
