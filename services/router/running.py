"""A router that is ready, as its services see it."""

from dataclasses import dataclass

from moesaic.v1 import router_pb2
from services.router.balance.balancer import Balancer
from services.router.engine.engine import Engine
from services.router.hosting.fleet import Fleet
from services.router.load.watch import RoutingWatch


@dataclass(frozen=True)
class Running:
    """What a ready router is made of, and how it describes itself."""

    engine: Engine
    fleet: Fleet
    description: router_pb2.RouterServiceDescribeResponse
    watch: RoutingWatch
    balancer: Balancer
