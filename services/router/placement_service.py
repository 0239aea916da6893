"""Serves `moesaic.v1.PlacementService`; translates protobuf, nothing else."""

from collections.abc import AsyncGenerator, Callable

import grpc

from moesaic.v1 import placement_pb2, placement_pb2_grpc, router_pb2
from services.router.activity import activity_message
from services.router.balance.messages import plan_message, strategy_of
from services.router.hosting.messages import (
    goal_of,
    parse_target,
    placement_message,
    progress_message,
)
from services.router.hosting.operations import Operation
from services.router.load.recorded import recorded_steps
from services.router.load.watch import RoutingWatch
from services.router.running import Running
from services.wire.errors import InvalidRequest

# By its descriptor, which reflection needs.
SERVICE_NAME = placement_pb2.DESCRIPTOR.services_by_name["PlacementService"].full_name

RecordSteps = Callable[[RoutingWatch, int], AsyncGenerator[router_pb2.RecordRoutingResponse, None]]


class PlacementService(placement_pb2_grpc.PlacementServiceServicer):
    """Answers UNAVAILABLE until the router is ready: `running` raises Unavailable then.

    `record` streams the next steps of a watch, so many of them.
    """

    def __init__(
        self, running: Callable[[], Running], *, record: RecordSteps = recorded_steps
    ) -> None:
        self._running = running
        self._record = record

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
        return router_pb2.AddExpertServicesResponse(
            addresses=await self._running().fleet.add(request.addresses)
        )

    async def RemoveExpertServices(
        self, request: placement_pb2.RemoveExpertServicesRequest, context: grpc.aio.ServicerContext
    ) -> placement_pb2.RemoveExpertServicesResponse:
        if not request.addresses:
            raise InvalidRequest("addresses is empty; name at least one")
        return placement_pb2.RemoveExpertServicesResponse(
            addresses=self._running().fleet.remove(request.addresses)
        )

    async def PlanPlacement(
        self, request: router_pb2.PlanPlacementRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.PlanPlacementResponse:
        running = self._running()
        model_digest, balancer = running.description.model_digest, running.balancer
        if request.HasField("target"):
            judgement = await balancer.judge(parse_target(request.target, model_digest))
        else:
            judgement = await balancer.preview(strategy_of(request.strategy))
        return plan_message(judgement, model_digest, balancer.outcomes)

    async def GetActivity(
        self, request: placement_pb2.GetActivityRequest, context: grpc.aio.ServicerContext
    ) -> placement_pb2.GetActivityResponse:
        return activity_message(self._running())

    def RecordRouting(
        self, request: router_pb2.RecordRoutingRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[router_pb2.RecordRoutingResponse, None]:
        return self._record(self._running().watch, request.num_steps)


async def _begun(
    running: Running, request: router_pb2.ChangePlacementRequest
) -> tuple[Operation, router_pb2.PlanPlacementResponse | None]:
    """The operation that is asked for, and its plan where it has one."""
    name, force, model_digest = (
        request.operation_id,
        request.force,
        running.description.model_digest,
    )
    if request.WhichOneof("change") != "planned":
        return running.fleet.change(name, goal_of(request, model_digest), force=force), None
    operation, judgement = await running.balancer.begin(
        name, strategy_of(request.planned.strategy), force=force
    )
    return operation, plan_message(judgement, model_digest, running.balancer.outcomes)
