"""Serves `moesaic.v1.RouterService`; translates protobuf, nothing else."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import grpc

from moesaic.v1 import router_pb2, router_pb2_grpc
from services.router.engine import Engine
from services.router.hosting.fleet import Fleet
from services.router.hosting.messages import goal_of, placement_message, progress_message
from services.router.session import Session
from services.wire.errors import InvalidRequest, Unavailable


@dataclass(frozen=True)
class Running:
    """A router that is ready."""

    engine: Engine
    fleet: Fleet
    description: router_pb2.RouterServiceDescribeResponse


class RouterService(router_pb2_grpc.RouterServiceServicer):
    """Answers UNAVAILABLE until `running` returns something."""

    def __init__(self, running: Callable[[], Running | None]) -> None:
        self._get = running

    async def Describe(
        self, request: router_pb2.RouterServiceDescribeRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.RouterServiceDescribeResponse:
        return self._running().description

    def Run(
        self, request_iterator: AsyncIterator[router_pb2.RunRequest], context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[router_pb2.RunResponse, None]:
        running = self._running()
        return Session(running.engine, running.description.vocab_size).run(request_iterator)

    async def GetPlacement(
        self, request: router_pb2.GetPlacementRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.GetPlacementResponse:
        running = self._running()
        return placement_message(running.fleet, running.description.model_digest)

    async def ChangePlacement(
        self, request: router_pb2.ChangePlacementRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[router_pb2.ChangePlacementResponse, None]:
        running = self._running()
        goal = goal_of(request, running.description.model_digest)
        operation = running.fleet.change(request.operation_id, goal, force=request.force)
        async for progress in operation.follow():
            yield progress_message(operation.name, progress)

    async def AddExpertServices(
        self, request: router_pb2.AddExpertServicesRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.AddExpertServicesResponse:
        if not request.addresses:
            raise InvalidRequest("addresses is empty; name at least one")
        return router_pb2.AddExpertServicesResponse(addresses=await self._running().fleet.add(request.addresses))

    def _running(self) -> Running:
        running = self._get()
        if running is None:
            raise Unavailable("the router is not ready: it is loading, or waiting for expert services")
        return running
