"""PlacementService of a router that serves: planning, recorded routing, and its
deprecated twins.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from moesaic.v1 import placement_pb2, router_pb2
from services.router.peers.pace import Pace
from tests.checkpoints import save_tiny
from tests.cluster import local
from tests.cluster.router_client import RouterClient, connected

NUM_LAYERS, NUM_EXPERTS, TOP_K = 3, 8, 2
STEPS = 32  # that the load is of; a quarter of them is enough to plan for


pytestmark = pytest.mark.usefixtures("gradients_as_before")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("olmoe", Path(tmp_path_factory.mktemp("models")) / "olmoe")


def target(addresses: Sequence[str], counts: Sequence[int]) -> router_pb2.TargetPlacement:
    """Every layer's experts, so many on each service in turn."""
    services, first = [], 0
    for address, count in zip(addresses, counts, strict=True):
        experts = range(first, first + count)
        layers = [
            router_pb2.HostedLayer(layer=layer, experts=experts) for layer in range(NUM_LAYERS)
        ]
        services.append(router_pb2.TargetService(address=address, layers=layers))
        first += count
    return router_pb2.TargetPlacement(services=services)


def hosted(services: Any) -> dict[str, dict[int, list[int]]]:
    return {
        service.address: {one.layer: [*one.experts] for one in service.layers}
        for service in services
    }


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""


async def changed(client: RouterClient, **change: Any) -> list[router_pb2.ChangePlacementResponse]:
    request = router_pb2.ChangePlacementRequest(**change)
    return [response async for response in client.placement.ChangePlacement(request)]


async def test_a_lopsided_placement_is_planned_carried_out_and_followed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Pace, "fit", lambda self: None
    )  # what these small services take is no more than noise
    async with (
        local.experts(model, 2) as (one, two),
        local.router(model, [one, two], rebalance=False, rebalance_steps=STEPS) as address,
        connected(address) as client,
    ):
        plan = client.placement.PlanPlacement
        code, details = await refused(plan(router_pb2.PlanPlacementRequest()))
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert details.startswith("0 steps have been seen so far; ")
        await changed(client, target=target([one, two], [NUM_EXPERTS - 1, 1]))
        await client.generate([[5, 6], [7, 8, 9]], max_new_tokens=STEPS)

        planned = await plan(
            router_pb2.PlanPlacementRequest(strategy=router_pb2.PLAN_STRATEGY_BALANCED)
        )
        assert sum(planned.after_nanos) < sum(planned.before_nanos)
        assert max(planned.after_imbalance) < max(planned.before_imbalance)
        assert {len(planned.before_nanos), len(planned.after_imbalance)} == {NUM_LAYERS}
        assert {(move.source or one, move.target) for move in planned.moves} == {(one, two)}
        assert all(move.why and move.gain_nanos > 0 for move in planned.moves)
        assert planned.num_steps >= STEPS // 4
        assert planned.reason
        placed = await client.placement.GetPlacement(router_pb2.GetPlacementRequest())
        assert hosted(placed.services) == hosted(
            target([one, two], [NUM_EXPERTS - 1, 1]).services
        )  # as it was

        even = await plan(router_pb2.PlanPlacementRequest(target=target([one, two], [4, 4])))
        assert len(even.moves) == NUM_LAYERS * 3
        assert hosted(even.target.services) == hosted(target([one, two], [4, 4]).services)

        change = {"operation_id": "now", "planned": router_pb2.PlannedPlacement()}
        first, *rest = await changed(client, **change)
        assert first.plan.moves
        assert not any(response.HasField("plan") for response in rest)
        placed = await client.placement.GetPlacement(router_pb2.GetPlacementRequest())
        assert hosted(placed.services) == hosted(first.plan.target.services)
        again, *_ = await changed(client, **change)
        assert (again.phase, again.plan.moves) == (
            router_pb2.OPERATION_PHASE_DONE,
            first.plan.moves,
        )
        assert [outcome.operation_id for outcome in again.plan.outcomes] == ["now"]
        assert [outcome.num_moves for outcome in again.plan.outcomes] == [len(first.plan.moves)]


async def test_what_cannot_be_planned_or_judged_is_refused(model: Path) -> None:
    async with (
        local.experts(model, 1) as (one,),
        local.router(model, [one], rebalance=False, rebalance_steps=1) as address,
        connected(address) as client,
    ):
        await client.generate([[5, 6]])
        other = target([one], [NUM_EXPERTS])
        other.model_digest = "another"
        twice = router_pb2.TargetPlacement(services=[*other.services, *other.services])
        ask = router_pb2.PlanPlacementRequest
        requests = {
            "strategy is 9; it must be from 0 to 2": ask(strategy=9),  # type: ignore[arg-type]
            "target.model_digest is 'another'; this router serves ": ask(target=other),
            f"target.services has {one} twice": ask(target=twice),
            "expert 7 of layer 0 and 2 others would be on no service": ask(
                target=target([one], [NUM_EXPERTS - 1])
            ),
        }
        for said, request in requests.items():
            _, details = await refused(client.placement.PlanPlacement(request))
            assert details.startswith(said)
        planned = router_pb2.PlannedPlacement(strategy=9)  # type: ignore[arg-type]
        code, _ = await refused(changed(client, planned=planned))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        code, details = await refused(changed(client))
        assert details == "change is not set; give a target, even, drain or planned"


async def test_the_deprecated_calls_answer_as_those_that_replace_them(model: Path) -> None:
    async with (
        local.experts(model, 1) as (one,),
        local.router(model, [one], rebalance=False) as address,
        connected(address) as client,
    ):
        request = router_pb2.GetPlacementRequest()
        assert await client.stub.GetPlacement(request) == await client.placement.GetPlacement(
            request
        )
        nobody = router_pb2.AddExpertServicesRequest()
        assert await refused(client.stub.AddExpertServices(nobody)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "addresses is empty; name at least one",
        )
        unplanned = router_pb2.PlanPlacementRequest()
        assert await refused(client.stub.PlanPlacement(unplanned)) == await refused(
            client.placement.PlanPlacement(unplanned)
        )
        even = router_pb2.ChangePlacementRequest(
            even=router_pb2.EvenPlacement(), operation_id="even"
        )
        done = [response async for response in client.stub.ChangePlacement(even)]
        assert done[-1].phase == router_pb2.OPERATION_PHASE_DONE
        recording = aiter(client.stub.RecordRouting(router_pb2.RecordRoutingRequest(num_steps=1)))
        assert (await anext(recording)).num_layers == NUM_LAYERS


async def test_served_steps_are_recorded_as_they_were_routed(model: Path) -> None:
    async with (
        local.experts(model, 1) as addresses,
        local.router(model, addresses, lanes=1) as address,
        connected(address) as client,
    ):
        responses = aiter(
            client.placement.RecordRouting(router_pb2.RecordRoutingRequest(num_steps=4))
        )
        begun = await anext(responses)
        assert (begun.num_layers, begun.num_experts, begun.num_experts_per_token) == (
            NUM_LAYERS,
            NUM_EXPERTS,
            TOP_K,
        )
        (outcome,) = await client.generate(
            [[5, 6, 7]], max_new_tokens=4, return_routed_experts=True
        )
        parts = [part async for part in responses]
        assert [row for part in parts for row in part.rows] == [3, 1, 1, 1]
        assert [is_decode for part in parts for is_decode in part.is_decode] == [
            False,
            True,
            True,
            True,
        ]
        assert parts[-1].num_missed == 0
        experts = [
            np.frombuffer(part.experts, dtype="<u2").reshape(NUM_LAYERS, -1, TOP_K)
            for part in parts
        ]
        last_rows = np.concatenate(experts, axis=1)[
            :, 2:
        ]  # what the tokens were drawn from: [layers, 4, k]
        routed = [[list(layer.experts) for layer in token.layers] for token in outcome.routed]
        assert last_rows.swapaxes(0, 1).tolist() == routed


async def test_what_a_router_does_is_told_in_counts_that_rise(model: Path) -> None:
    async with (
        local.experts(model, 1) as (one,),
        local.router(model, [one], rebalance=False) as address,
        connected(address) as client,
    ):

        async def activity() -> placement_pb2.GetActivityResponse:
            asked = placement_pb2.GetActivityRequest()
            told: placement_pb2.GetActivityResponse = await client.placement.GetActivity(asked)
            return told

        before = await activity()
        assert not any(max(load.pairs) for load in before.loads), "warming up is no traffic"
        await client.generate([[5, 6, 7]], max_new_tokens=8)
        after = await activity()
        assert after.instance == before.instance != ""
        assert after.clock_nanos > before.clock_nanos
        assert after.drawn_tokens - before.drawn_tokens == 8
        assert after.parts.dense_nanos > before.parts.dense_nanos
        (was,), (service,) = before.services, after.services
        assert service.address == one
        assert service.pairs - was.pairs == (3 + 7) * TOP_K * NUM_LAYERS - 2 * TOP_K
        assert service.straggler_layers - was.straggler_layers == 8 * NUM_LAYERS
        assert service.compute_nanos > was.compute_nanos
        assert service.frames_in_flight == 0
        assert [load.layer for load in after.loads] == [*range(NUM_LAYERS)]
        assert [len(load.pairs) for load in after.loads] == [NUM_EXPERTS] * NUM_LAYERS
        assert {*after.loads[0].replicas} == {1}
        assert (after.running_sequences, after.waiting_sequences, len(after.operations)) == (
            0,
            0,
            0,
        )
        gaps = sum(one.count for one in after.token_gaps)
        assert gaps - sum(one.count for one in before.token_gaps) == 7
