"""Experts are moved, joined and drained over the router's own calls, while it serves."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from moesaic.v1 import router_pb2
from services.router.peers.native_transport import AVAILABLE
from tests.checkpoints import VOCAB_SIZE
from tests.cluster import local
from tests.cluster.oracle import prompts_of
from tests.cluster.router_client import RouterClient, connected

LAYERS, NUM_EXPERTS = range(3), 8


def target(address: str, experts: range) -> router_pb2.TargetService:
    layers = [router_pb2.HostedLayer(layer=layer, experts=experts) for layer in LAYERS]
    return router_pb2.TargetService(address=address, layers=layers)


def halves(one: str, two: str, **fields: Any) -> router_pb2.ChangePlacementRequest:
    """The first half of each layer on one, the second on the other."""
    services = [target(one, range(4)), target(two, range(4, 8))]
    return router_pb2.ChangePlacementRequest(
        target=router_pb2.TargetPlacement(services=services), **fields
    )


async def changed(client: RouterClient, request: router_pb2.ChangePlacementRequest) -> list[Any]:
    async with asyncio.timeout(30):
        return [response async for response in client.placement.ChangePlacement(request)]


async def placement(client: RouterClient) -> dict[str, router_pb2.PlacedService]:
    response = await client.placement.GetPlacement(router_pb2.GetPlacementRequest())
    return {service.address: service for service in response.services}


def num_hosted(service: router_pb2.PlacedService) -> int:
    return sum(len(layer.experts) for layer in service.layers)


async def test_tokens_are_the_same_while_experts_move(olmoe: Path) -> None:
    numerics = {"batch_invariant": True}
    async with (
        local.experts(olmoe, 2, **numerics) as (one, two),
        local.router(olmoe, [one, two], **numerics) as router,
    ):
        async with connected(router) as client, connected(router) as admin:
            prompts = prompts_of([5, 9, 14], VOCAB_SIZE)
            undisturbed = [
                outcome.tokens for outcome in await client.generate(prompts, max_new_tokens=60)
            ]
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(client.generate(prompts, max_new_tokens=60))
                responses = await changed(admin, halves(one, two))
                await changed(admin, halves(two, one))
            assert [outcome.tokens for outcome in serving.result()] == undisturbed
            assert responses[-1].phase == router_pb2.OPERATION_PHASE_DONE
            assert responses[-1].num_done == responses[-1].num_total > 0
            placed = await placement(admin)
            assert [list(layer.experts) for layer in placed[two].layers] == [[0, 1, 2, 3]] * 3


async def test_a_placement_says_what_there_is(olmoe: Path) -> None:
    async with (
        local.experts(olmoe, 2) as addresses,
        local.router(olmoe, addresses, coverage=2) as router,
    ):
        async with connected(router) as client:
            response = await client.placement.GetPlacement(router_pb2.GetPlacementRequest())
            assert (response.coverage, response.num_experts) == (2, NUM_EXPERTS)
            assert list(response.moe_layers) == list(LAYERS)
            description = await client.stub.Describe(router_pb2.RouterServiceDescribeRequest())
            assert response.model_digest == description.model_digest
            for service in response.services:
                assert service.state == router_pb2.SERVICE_STATE_LIVE
                assert service.device == "cpu"
                assert service.streams == ("native" if AVAILABLE else "gRPC")
                assert service.expert_memory_bytes > service.free_memory_bytes > 0


async def test_a_service_made_known_is_given_experts_and_drained_of_them(olmoe: Path) -> None:
    async with local.experts(olmoe, 3) as addresses, local.router(olmoe, addresses[:2]) as router:
        async with connected(router) as client:
            request = router_pb2.AddExpertServicesRequest(addresses=addresses[2:])
            assert list((await client.placement.AddExpertServices(request)).addresses) == sorted(
                addresses
            )
            await client.generate([[5, 6]])
            while not (await placement(client))[addresses[2]].is_live:
                pass
            await changed(
                client, router_pb2.ChangePlacementRequest(even=router_pb2.EvenPlacement())
            )
            assert [num_hosted(service) for service in (await placement(client)).values()] == [
                8,
                8,
                8,
            ]
            drain = router_pb2.ChangePlacementRequest(
                drain=router_pb2.DrainService(address=addresses[0])
            )
            await changed(client, drain)
            drained = (await placement(client))[addresses[0]]
            assert (num_hosted(drained), drained.state) == (0, router_pb2.SERVICE_STATE_DRAINING)
            await client.generate([[5, 6]])


@pytest.mark.parametrize(
    ("request_fields", "status", "details"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "change is not set"),
        (
            {"target": router_pb2.TargetPlacement(model_digest="another")},
            grpc.StatusCode.FAILED_PRECONDITION,
            "target.model_digest is 'another'",
        ),
        (
            {
                "target": router_pb2.TargetPlacement(
                    services=[target("a:1", range(1)), target("a:1", range(1))]
                )
            },
            grpc.StatusCode.INVALID_ARGUMENT,
            "has a:1 twice",
        ),
        (
            {
                "target": router_pb2.TargetPlacement(services=[target("a:1", range(9))]),
                "force": True,
            },
            grpc.StatusCode.NOT_FOUND,
            "expert 8 of layer 0",
        ),
        (
            {"drain": router_pb2.DrainService(address="a:1")},
            grpc.StatusCode.FAILED_PRECONDITION,
            "there is no expert service a:1",
        ),
    ],
)
async def test_a_change_that_cannot_be_is_refused_by_what_lacks(
    olmoe: Path, request_fields: dict[str, Any], status: grpc.StatusCode, details: str
) -> None:
    async with local.experts(olmoe, 1) as addresses, local.router(olmoe, addresses) as router:
        async with connected(router) as client:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await changed(client, router_pb2.ChangePlacementRequest(**request_fields))
            assert refused.value.code() == status
            assert details in (refused.value.details() or "")


async def test_no_addresses_and_no_address_are_refused(olmoe: Path) -> None:
    async with local.experts(olmoe, 1) as addresses, local.router(olmoe, addresses) as router:
        async with connected(router) as client:
            for named in ([], ["nowhere"]):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await client.placement.AddExpertServices(
                        router_pb2.AddExpertServicesRequest(addresses=named)
                    )
                assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_leaves_does_not_end_its_operation(olmoe: Path) -> None:
    async with local.experts(olmoe, 2) as (one, two), local.router(olmoe, [one, two]) as router:
        async with connected(router) as client:
            leaving = client.placement.ChangePlacement(halves(one, two, operation_id="move"))
            assert (await leaving.read()).operation_id == "move"
            leaving.cancel()
            told = await changed(client, halves(one, two, operation_id="move"))
            assert told[-1].phase == router_pb2.OPERATION_PHASE_DONE
            assert num_hosted((await placement(client))[one]) == 12


async def test_requests_outlive_a_service_whose_experts_were_on_no_other(olmoe: Path) -> None:
    numerics = {"batch_invariant": True}
    async with local.experts(olmoe, 2, **numerics) as addresses, AsyncExitStack() as leaving:
        lost = await leaving.enter_async_context(local.expert(olmoe, **numerics))
        async with (
            local.router(olmoe, [*addresses, lost], **numerics) as router,
            connected(router) as client,
        ):
            prompts = prompts_of([5, 9], VOCAB_SIZE)
            undisturbed = [
                outcome.tokens for outcome in await client.generate(prompts, max_new_tokens=100)
            ]
            names = await client.submit(prompts, max_new_tokens=100)
            await client.read()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(leaving.aclose())
                outcomes = await client.finished(*names)
            assert [outcome.tokens for outcome in outcomes] == undisturbed
