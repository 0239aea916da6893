"""The calls that change what one expert service hosts."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import grpc

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.router.peers.expected import Expected
from services.router.peers.known_hosting import KnownHosting
from services.router.peers.patience import Patience
from services.router.peers.trust import Standing, Trust
from services.runtime.calls import as_serving_errors, readable
from services.runtime.notice import Notice
from services.wire.errors import ServingError, Unavailable
from services.wire.expert_key import ExpertKey

NOTHING_KNOWN: Mapping[ExpertKey, bytes] = {}


class HostingCalls:
    """Made while the service is connected; they end when it shows that it hosts what they say."""

    trust: Trust

    def __init__(self, address: str, expected: Expected, patience: Patience) -> None:
        self.address = address
        self._name = f"expert service {address}"
        self._expected = expected
        self._patience = patience
        self._hosting = KnownHosting(address, expected.num_experts)
        self._news = Notice()  # of hosting, connection or standing
        self._stub: expert_pb2_grpc.ExpertServiceStub | None = None

    @property
    def hosting(self) -> expert_pb2.WatchHostingResponse:
        """What it said last of what it hosts; of generation 0 while it is not connected."""
        return self._hosting.message

    async def load(
        self,
        experts: Sequence[ExpertKey],
        progress: Callable[[int, int], None],
        *,
        operation: str = "",
        hold_seconds: float = 0.0,
        known: Mapping[ExpertKey, bytes] = NOTHING_KNOWN,
        in_background: bool = False,
    ) -> None:
        """Have it load experts, and hold them for `operation` for so long from then; return once
        they show as ready, and it has shown that it computes. With `in_background` its serving goes
        first.

        `progress` is called with how many are loaded and how many there are in all. With an
        operation, 0 seconds end its hold. `known` has the content hashes that experts must have.
        Raises ServingError when it refuses, stalls or is lost; BadState when its checkpoint is
        another; Outdated when its hosting is another by now than is known here: `until_newer` waits
        for that.
        """
        stub, hosting = self._connection()
        request = expert_pb2.LoadExpertsRequest(
            expected_generation=hosting.generation,
            model_digest=self._expected.model_digest,
            experts=[
                expert_pb2.ExpertId(
                    layer=layer,
                    expert=expert,
                    content_hash=known.get(ExpertKey(layer, expert), b""),
                )
                for layer, expert in experts
            ],
            operation=operation,
            hold_nanos=int(hold_seconds * 1e9),
            in_background=in_background,
        )
        generation = None
        call = stub.LoadExperts(request)
        try:
            with as_serving_errors(self._name):
                seconds = self._patience.load_progress_seconds
                while (response := await _next_of(call, self._name, seconds)) is not None:
                    progress(response.num_loaded, response.num_total)
                    generation = response.generation
        finally:
            call.cancel()
        if generation is None:
            raise ServingError(f"expert service {self.address} ended a load without a word")
        await self._hosting.until(hosting.instance, generation, self._patience.hosting_seconds)
        await self._until_tried(hosting.instance)

    async def unload(self, experts: Sequence[ExpertKey], *, operation: str = "") -> None:
        """Have it let experts go, those included that `operation` holds; returns once its hosting
        is without them.

        Raises ServingError as `load` does, and Outdated when another operation holds one of them.
        """
        stub, hosting = self._connection()
        request = expert_pb2.UnloadExpertsRequest(
            expected_generation=hosting.generation,
            experts=[expert_pb2.ExpertId(layer=layer, expert=expert) for layer, expert in experts],
            operation=operation,
        )
        with as_serving_errors(self._name):
            response = readable(
                await stub.UnloadExperts(request, timeout=self._patience.unload_seconds), self._name
            )
        await self._hosting.until(
            hosting.instance, response.generation, self._patience.hosting_seconds
        )

    async def until_newer(self, generation: int) -> None:
        """Return once a later hosting than that is known; for whoever planned with it and was
        refused as outdated.

        Raises Unavailable when it is lost, or shows none in time.
        """
        _, hosting = self._connection()
        await self._hosting.until(hosting.instance, generation + 1, self._patience.hosting_seconds)

    async def hold_planning(self, router: str, seconds: float) -> str:
        """Ask to plan for all routers for so long; the one that does.

        A service that is older than this call leaves it to whoever asks. Raises ServingError.
        """
        stub, _ = self._connection()
        request = expert_pb2.HoldPlanningRequest(router=router, hold_nanos=int(seconds * 1e9))
        with as_serving_errors(self._name):
            try:
                response: expert_pb2.HoldPlanningResponse | None = await stub.HoldPlanning(
                    request, timeout=self._patience.planning_seconds
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return router
                raise
        return readable(response, self._name).planner

    def _connection(
        self,
    ) -> tuple[expert_pb2_grpc.ExpertServiceStub, expert_pb2.WatchHostingResponse]:
        if self._stub is None or self.hosting.generation == 0:
            raise Unavailable(f"expert service {self.address} is not connected")
        return self._stub, self.hosting

    async def _until_tried(self, instance: str) -> None:
        try:
            async with asyncio.timeout(self._patience.hosting_seconds):
                while self._hosting.ready and self.trust.standing is Standing.UNTRIED:
                    await self._news.wait()
                is_tried = self.trust.standing is Standing.TRUSTED or not self._hosting.ready
        except TimeoutError:
            is_tried = False
        if not is_tried or self.hosting.instance != instance:
            raise Unavailable(f"{self._name} has loaded experts and does not compute")


async def _next_of(
    call: grpc.aio.UnaryStreamCall, peer: str, timeout_seconds: float
) -> expert_pb2.LoadExpertsResponse | None:
    async with asyncio.timeout(timeout_seconds):
        response = await call.read()
    return None if response is grpc.aio.EOF else readable(response, peer)
