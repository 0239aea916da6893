"""Serves `moesaic.v1.RouterService`; translates protobuf, nothing else."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import grpc

from moesaic.v1 import router_pb2, router_pb2_grpc
from services.router.balance.balancer import Balancer
from services.router.balance.messages import plan_message, strategy_of
from services.router.engine import Engine
from services.router.hosting.fleet import Fleet
from services.router.hosting.messages import goal_of, placement_message, progress_message, stated
from services.router.hosting.operations import Operation
from services.router.load.recorded import recorded_steps
from services.router.load.watch import RoutingWatch
from services.router.session import Session
from services.wire.errors import InvalidRequest, Unavailable


@dataclass(frozen=True)
class Running:
    """A router that is ready."""

    engine: Engine
    fleet: Fleet
    description: router_pb2.RouterServiceDescribeResponse
    watch: RoutingWatch
    balancer: Balancer


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
        operation, plan = await _begun(self._running(), request)
        async for progress in operation.follow():
            yield progress_message(operation.name, progress, plan)
            plan = None  # said once

    async def AddExpertServices(
        self, request: router_pb2.AddExpertServicesRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.AddExpertServicesResponse:
        if not request.addresses:
            raise InvalidRequest("addresses is empty; name at least one")
        return router_pb2.AddExpertServicesResponse(addresses=await self._running().fleet.add(request.addresses))

    async def PlanPlacement(
        self, request: router_pb2.PlanPlacementRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.PlanPlacementResponse:
        running = self._running()
        model_digest, balancer = running.description.model_digest, running.balancer
        if request.HasField("target"):
            judged = await balancer.judge(stated(request.target, model_digest))
        else:
            judged = await balancer.preview(strategy_of(request.strategy))
        return plan_message(judged, model_digest, balancer.outcomes)

    def RecordRouting(
        self, request: router_pb2.RecordRoutingRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[router_pb2.RecordRoutingResponse, None]:
        return recorded_steps(self._running().watch, request.num_steps)

    def _running(self) -> Running:
        running = self._get()
        if running is None:
            raise Unavailable("the router is not ready: it is loading, or waiting for expert services")
        return running


async def _begun(
    running: Running, request: router_pb2.ChangePlacementRequest
) -> tuple[Operation, router_pb2.PlanPlacementResponse | None]:
    """The operation that is asked for, and its plan where it has one."""
    name, force, model_digest = request.operation_id, request.force, running.description.model_digest
    if request.WhichOneof("change") != "planned":
        return running.fleet.change(name, goal_of(request, model_digest), force=force), None
    operation, judged = await running.balancer.begin(name, strategy_of(request.planned.strategy), force=force)
    return operation, plan_message(judged, model_digest, running.balancer.outcomes)
