"""Between the messages of router.proto about hosting and hosting's own words."""

from collections.abc import Iterable

from moesaic.v1 import expert_pb2, router_pb2
from services.router.expert_key import ExpertKey
from services.router.expert_peer import ExpertPeer
from services.router.hosting.fleet import Fleet
from services.router.hosting.goals import Even, Goal, Stated, Without
from services.router.hosting.operations import Phase, Progress
from services.wire.errors import BadState, InvalidRequest

PHASES = {
    Phase.LOADING: router_pb2.OPERATION_PHASE_LOADING,
    Phase.RETIRING: router_pb2.OPERATION_PHASE_RETIRING,
    Phase.DONE: router_pb2.OPERATION_PHASE_DONE,
}


def goal_of(request: router_pb2.ChangePlacementRequest, model_digest: str) -> Goal:
    """What a request asks for.

    Raises InvalidRequest where it is not said, or said twice, and BadState for another checkpoint's placement.
    """
    match request.WhichOneof("change"):
        case "target":
            if request.target.model_digest not in ("", model_digest):
                raise BadState(
                    f"target.model_digest is {request.target.model_digest!r}; this router serves {model_digest!r}"
                )
            return Stated(_stated(request.target.services))
        case "even":
            return Even()
        case "drain":
            return Without(request.drain.address)
        case _:
            raise InvalidRequest("change is not set; give a target, even or drain")


def progress_message(name: str, progress: Progress) -> router_pb2.ChangePlacementResponse:
    """How far the operation of that name is."""
    return router_pb2.ChangePlacementResponse(
        operation_id=name,
        phase=PHASES[progress.phase],
        num_done=progress.num_done,
        num_total=progress.num_total,
    )


def placement_message(fleet: Fleet, model_digest: str) -> router_pb2.GetPlacementResponse:
    """Who hosts what, and whether it is used."""
    layers = sorted({layer for layer, _ in fleet.wanted.experts})
    return router_pb2.GetPlacementResponse(
        services=[_placed(peer, fleet.survey.is_draining(peer)) for peer in fleet.peers],
        min_live_replicas=fleet.laid.min_live_replicas,
        coverage=fleet.wanted.coverage,
        model_digest=model_digest,
        moe_layers=layers,
        num_experts=len(fleet.wanted.experts) // len(layers),
    )


def state_of(peer: ExpertPeer, *, is_draining: bool) -> "router_pb2.ServiceState.ValueType":
    """Whether frames are sent to a service, and if not why."""
    if not peer.is_live:
        return router_pb2.SERVICE_STATE_LOST
    if peer.is_suspect:
        return router_pb2.SERVICE_STATE_SUSPECT
    return router_pb2.SERVICE_STATE_DRAINING if is_draining else router_pb2.SERVICE_STATE_LIVE


def _stated(services: Iterable[router_pb2.TargetService]) -> dict[str, frozenset[ExpertKey]]:
    stated: dict[str, frozenset[ExpertKey]] = {}
    for service in services:
        if service.address in stated:
            raise InvalidRequest(f"target.services has {service.address} twice")
        stated[service.address] = frozenset(
            (hosted.layer, expert) for hosted in service.layers for expert in hosted.experts
        )
    return stated


def _placed(peer: ExpertPeer, is_draining: bool) -> router_pb2.PlacedService:
    by_layer: dict[int, list[int]] = {}
    for hosted in peer.hosting.experts:
        if hosted.state == expert_pb2.EXPERT_STATE_READY:
            by_layer.setdefault(hosted.layer, []).append(hosted.expert)
    description = peer.description or expert_pb2.ExpertServiceDescribeResponse()
    return router_pb2.PlacedService(
        address=peer.address,
        instance=peer.hosting.instance,
        is_live=peer.is_live,
        generation=peer.hosting.generation,
        layers=[router_pb2.HostedLayer(layer=layer, experts=experts) for layer, experts in sorted(by_layer.items())],
        state=state_of(peer, is_draining=is_draining),
        device=description.device,
        expert_memory_bytes=description.expert_memory_bytes,
        free_memory_bytes=peer.hosting.free_memory_bytes,
        refusal="" if peer.refusal is None else str(peer.refusal),
    )
