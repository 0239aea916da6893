"""Between the messages of router.proto about hosting and hosting's own words."""

from collections.abc import Iterable

from moesaic.v1 import expert_pb2, router_pb2
from services.router.hosting.fleet import Fleet
from services.router.hosting.operations import OperationProgress, Phase
from services.router.hosting.survey import Survey
from services.router.peers.peer import ExpertPeer
from services.router.planning.goals import Even, Goal, Stated, Without
from services.wire.errors import BadState, InvalidRequest
from services.wire.expert_key import ExpertKey
from services.wire.quoting import quoted

PHASES = {
    Phase.WAITING: router_pb2.OPERATION_PHASE_WAITING,
    Phase.LOADING: router_pb2.OPERATION_PHASE_LOADING,
    Phase.RETIRING: router_pb2.OPERATION_PHASE_RETIRING,
    Phase.DONE: router_pb2.OPERATION_PHASE_DONE,
}


def goal_of(request: router_pb2.ChangePlacementRequest, model_digest: str) -> Goal:
    """What a request asks for, unless that is to be planned first.

    Raises InvalidRequest where it is not said, and what `parse_target` raises.
    """
    match request.WhichOneof("change"):
        case "target":
            return Stated(parse_target(request.target, model_digest))
        case "even":
            return Even()
        case "drain":
            return Without(request.drain.address)
        case _:
            raise InvalidRequest("change is not set; give a target, even, drain or planned")


def parse_target(
    target: router_pb2.TargetPlacement, model_digest: str
) -> dict[str, frozenset[ExpertKey]]:
    """What each service is to host, by address.

    Raises InvalidRequest for one that stands twice, and BadState for another checkpoint's
    placement.
    """
    if target.model_digest not in ("", model_digest):
        raise BadState(
            f"target.model_digest is {quoted(target.model_digest)}; this router serves "
            f"{model_digest!r}"
        )
    by_address: dict[str, frozenset[ExpertKey]] = {}
    for service in target.services:
        if service.address in by_address:
            raise InvalidRequest(f"target.services has {service.address} twice")
        by_address[service.address] = frozenset(
            ExpertKey(hosted.layer, expert)
            for hosted in service.layers
            for expert in hosted.experts
        )
    return by_address


def progress_message(
    name: str, progress: OperationProgress, plan: router_pb2.PlanPlacementResponse | None
) -> router_pb2.ChangePlacementResponse:
    """How far the operation of that name is, and what is carried out where that is to be said."""
    return router_pb2.ChangePlacementResponse(
        operation_id=name,
        phase=PHASES[progress.phase],
        num_done=progress.num_done,
        num_total=progress.num_total,
        loaded_bytes=progress.loaded_bytes,
        total_bytes=progress.total_bytes,
        plan=plan,
    )


def placement_message(fleet: Fleet, model_digest: str) -> router_pb2.GetPlacementResponse:
    """Who hosts what, and whether it is used."""
    layers = fleet.wanted.layers
    return router_pb2.GetPlacementResponse(
        services=[_placed(peer, fleet.survey) for peer in fleet.peers],
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
    if peer.trust.is_quarantined:
        return router_pb2.SERVICE_STATE_QUARANTINED
    if peer.is_suspect:
        return router_pb2.SERVICE_STATE_SUSPECT
    return router_pb2.SERVICE_STATE_DRAINING if is_draining else router_pb2.SERVICE_STATE_LIVE


def hosted_layers(experts: Iterable[ExpertKey]) -> list[router_pb2.HostedLayer]:
    """Experts by layer: layers in ascending order, the experts of each as they come."""
    by_layer: dict[int, list[int]] = {}
    for layer, expert in experts:
        by_layer.setdefault(layer, []).append(expert)
    return [
        router_pb2.HostedLayer(layer=layer, experts=mine)
        for layer, mine in sorted(by_layer.items())
    ]


def _placed(peer: ExpertPeer, survey: Survey) -> router_pb2.PlacedService:
    ready = sorted(survey.replicas(peer))
    description = peer.description or expert_pb2.ExpertServiceDescribeResponse()
    return router_pb2.PlacedService(
        address=peer.address,
        instance=peer.hosting.instance,
        is_live=peer.is_live,
        generation=peer.hosting.generation,
        layers=hosted_layers(ready),
        state=state_of(peer, is_draining=survey.is_draining(peer)),
        device=description.device,
        expert_memory_bytes=description.expert_memory_bytes,
        free_memory_bytes=peer.hosting.free_memory_bytes,
        streams=peer.streams[0].transport_kind if peer.streams else "",
        refusal=survey.amiss(peer)
        or peer.trust.why
        or ("" if peer.refusal is None else str(peer.refusal)),
    )
