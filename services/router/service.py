"""The router's gRPC service: translates protobuf, nothing else."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import grpc

from moesaic.v1 import expert_pb2, router_pb2, router_pb2_grpc
from services.router.engine import Engine
from services.router.expert_peer import ExpertPeer
from services.router.fleet import Fleet
from services.router.session import Session
from services.wire.errors import Unavailable


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
        fleet = self._running().fleet
        return router_pb2.GetPlacementResponse(
            services=[_placed(peer) for peer in fleet.peers], min_live_replicas=fleet.min_live_replicas
        )

    def _running(self) -> Running:
        running = self._get()
        if running is None:
            raise Unavailable("the router is not ready: it is loading, or waiting for expert services")
        return running


def _placed(peer: ExpertPeer) -> router_pb2.PlacedService:
    by_layer: dict[int, list[int]] = {}
    for hosted in peer.hosting.experts:
        if hosted.state == expert_pb2.EXPERT_STATE_READY:
            by_layer.setdefault(hosted.layer, []).append(hosted.expert)
    return router_pb2.PlacedService(
        address=peer.address,
        instance=peer.hosting.instance,
        is_live=peer.is_live,
        generation=peer.hosting.generation,
        layers=[router_pb2.HostedLayer(layer=layer, experts=experts) for layer, experts in sorted(by_layer.items())],
    )
