"""A running router, as the commands talk to it: questions with a deadline, and operations that are
followed.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import grpc

from moesaic.v1 import placement_pb2_grpc, router_pb2
from services.cli.failed_calls import words_of
from services.cli.hosting.shown import shown_on
from services.cli.report import Report
from services.runtime.channels import open_channel
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles
from services.wire.errors import ServingError

ANSWER_SECONDS = 10.0
PLAN_SECONDS = 60.0


class RouterFailed(ServingError):
    """The router refused the call or did not answer; the message has the status and the reason."""


class RouterCall(Protocol):
    """Which router is asked, and by whom."""

    @property
    def router(self) -> str: ...
    @property
    def tls(self) -> TlsFiles | None: ...
    @property
    def verbose(self) -> bool: ...


class OperationSettings(RouterCall, Protocol):
    """The settings of any command that changes who hosts what."""

    @property
    def force(self) -> bool: ...
    @property
    def operation_id(self) -> str | None: ...
    @property
    def timeout(self) -> float: ...


@asynccontextmanager
async def router_at(settings: RouterCall) -> AsyncIterator[placement_pb2_grpc.PlacementServiceStub]:
    """The router's calls for operators. One that fails in the block raises RouterFailed."""
    address = settings.router
    try:
        async with open_channel(
            address, tls=settings.tls, server_name=Role.ROUTER.server_name
        ) as channel:
            yield placement_pb2_grpc.PlacementServiceStub(channel)
    except grpc.aio.AioRpcError as error:
        words = await words_of(error, "router", address, verbose=settings.verbose)
        raise RouterFailed(words) from error


async def placement_of(settings: RouterCall) -> router_pb2.GetPlacementResponse:
    """Who hosts what, as the router sees it. Raises RouterFailed."""
    async with router_at(settings) as stub:
        placement: router_pb2.GetPlacementResponse = await stub.GetPlacement(
            router_pb2.GetPlacementRequest(), timeout=ANSWER_SECONDS
        )
        return placement


async def plan_of(
    settings: RouterCall, request: router_pb2.PlanPlacementRequest
) -> router_pb2.PlanPlacementResponse:
    """What the router would change, and why. Raises RouterFailed."""
    async with router_at(settings) as stub:
        planned: router_pb2.PlanPlacementResponse = await stub.PlanPlacement(
            request, timeout=PLAN_SECONDS
        )
        return planned


async def change(
    request: router_pb2.ChangePlacementRequest, settings: OperationSettings, report: Report
) -> None:
    """Ask for a change and show how far it is until it is done. Raises RouterFailed.

    Who breaks off, or runs out of time, is told that the operation goes on and how to follow it
    again.
    """
    request.operation_id = settings.operation_id or uuid.uuid4().hex[:12]
    request.force = settings.force
    began = time.monotonic()
    last: router_pb2.ChangePlacementResponse | None = None
    async with router_at(settings) as stub:
        call = stub.ChangePlacement(request, timeout=settings.timeout)
        try:
            with shown_on(report) as shown:
                async for last in call:
                    shown.show(last)
        except asyncio.CancelledError:
            _say_it_goes_on(report, request.operation_id, is_certain=last is not None)
            raise
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                _say_it_goes_on(report, request.operation_id, is_certain=last is not None)
            raise
        finally:
            call.cancel()
    if last is None or last.phase != router_pb2.OPERATION_PHASE_DONE:
        raise RouterFailed(
            f"the router ended the stream before operation {request.operation_id} was done"
        )
    moved = (
        f"{last.num_total} experts loaded or unloaded"
        if last.num_total
        else "nothing had to change"
    )
    report.line(f"done: {moved}, {time.monotonic() - began:.1f} s")


def _say_it_goes_on(report: Report, operation_id: str, *, is_certain: bool) -> None:
    does = "goes on in the router" if is_certain else "may go on in the router"
    report.line(
        f"operation {operation_id} {does}; the same command with --operation-id {operation_id} "
        "follows it"
    )
