"""Between expert.proto and the expert service's own words; nothing is decided here."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

import grpc

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.expert.admission import Contract, Slots
from services.expert.bank import Bank
from services.expert.batcher import Batcher
from services.expert.dispatch_stream import DispatchStream
from services.expert.holds import MAX_HOLD_SECONDS, MAX_NAME_CHARACTERS, Hold
from services.expert.hosting import ExpertState, Hosting, HostingSnapshot
from services.expert.loading import Library, LoadingProgress
from services.expert.plane import Plane
from services.expert.planning_hold import PlanningHold
from services.kernels import ExpertKind
from services.model.checkpoint import Checkpoint
from services.model.fingerprint import numerics_fingerprint
from services.wire.errors import BadState, InvalidRequest
from services.wire.expert_key import ExpertKey
from services.wire.frames import ELEMENT_TYPES
from services.wire.quoting import quoted

SERVICE_NAME = "moesaic.v1.ExpertService"

STATES = {
    ExpertState.LOADING: expert_pb2.EXPERT_STATE_LOADING,
    ExpertState.READY: expert_pb2.EXPERT_STATE_READY,
    ExpertState.RETIRING: expert_pb2.EXPERT_STATE_RETIRING,
}


class ExpertService(expert_pb2_grpc.ExpertServiceServicer):
    """Serves `moesaic.v1.ExpertService`; see the proto for what its methods promise."""

    def __init__(
        self,
        *,
        name: str,
        checkpoint: Checkpoint,
        contract: Contract,
        bank: Bank,
        hosting: Hosting,
        slots: Slots,
        batcher: Batcher,
        library: Library,
        window_pairs: int,
        batch_invariant: bool,
        plane: Plane | None = None,
        compiled_kind: ExpertKind | None = None,
    ) -> None:
        self.instance = uuid.uuid4().hex
        self._name = name
        self._checkpoint = checkpoint
        self._contract = contract
        self._bank = bank
        self._hosting = hosting
        self._slots = slots
        self._batcher = batcher
        self._library = library
        self._plane = plane
        self._compiled_kind = compiled_kind
        self._window_pairs = window_pairs
        self._batch_invariant = batch_invariant
        self._planning = PlanningHold()
        self._draining = asyncio.Event()
        self._newest = expert_pb2.WatchHostingResponse()  # one message for all who watch

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server: `Dispatch` in bytes, which the codec reads, the rest in
        messages.
        """
        expert_pb2_grpc.add_ExpertServiceServicer_to_server(self, server)
        # Replaces the handler that the line above registered for this one method.
        dispatch = grpc.stream_stream_rpc_method_handler(self.dispatch)
        server.add_registered_method_handlers(SERVICE_NAME, {"Dispatch": dispatch})

    def drain(self) -> None:
        """Read no more frames, answer those that were read, and end the streams."""
        self._draining.set()
        self._hosting.close()

    async def dispatch(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> None:
        stream = DispatchStream(
            self._batcher, self._contract, self._slots, window_pairs=self._window_pairs
        )
        await stream.serve(requests, context.write, self._draining)

    async def Describe(
        self, request: expert_pb2.ExpertServiceDescribeRequest, context: grpc.aio.ServicerContext
    ) -> expert_pb2.ExpertServiceDescribeResponse:
        await self._library.refresh()
        checkpoint, bank = self._checkpoint, self._bank
        return expert_pb2.ExpertServiceDescribeResponse(
            instance=self.instance,
            model=self._name,
            model_digest=checkpoint.digest,
            device=str(bank.device),
            dtype=ELEMENT_TYPES[bank.dtype],
            hidden_size=checkpoint.hidden_size,
            expert_bytes=[bank.slot_bytes] * len(checkpoint.moe_layers),
            moe_layers=checkpoint.moe_layers,
            num_experts=checkpoint.num_experts,
            expert_memory_bytes=bank.memory_bytes,
            free_memory_bytes=self._free_bytes(self._hosting.num_hosted),
            numerics_fingerprint=numerics_fingerprint(bank.device, self._compiled_kind),
            max_frame_bytes=self._contract.max_frame_bytes,
            batch_invariant=self._batch_invariant,
            frame_dtypes=[ELEMENT_TYPES[dtype] for dtype in self._contract.max_rows],
            sums_pairs=True,
            dispatch_port=self._plane.port if self._plane else 0,
        )

    async def WatchHosting(
        self, request: expert_pb2.WatchHostingRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[expert_pb2.WatchHostingResponse, None]:
        async for snapshot in self._hosting.watch():
            yield self._hosting_response(snapshot)

    async def LoadExperts(
        self, request: expert_pb2.LoadExpertsRequest, context: grpc.aio.ServicerContext
    ) -> None:
        if request.model_digest != self._checkpoint.digest:
            raise BadState(
                f"model_digest is {quoted(request.model_digest)}; "
                f"this service's checkpoint is {self._checkpoint.digest!r}"
            )
        known = {
            ExpertKey(one.layer, one.expert): one.content_hash
            for one in request.experts
            if one.content_hash
        }

        async def report(progress: LoadingProgress) -> None:
            await context.write(
                expert_pb2.LoadExpertsResponse(
                    num_loaded=progress.num_loaded,
                    num_total=progress.num_total,
                    generation=progress.generation,
                )
            )

        keys, hold = _keys(request.experts), _hold(request)
        if hold is not None and not hold.seconds:
            await report(self._library.release(keys, hold.operation))
        else:
            await self._library.load(
                keys,
                request.expected_generation,
                report,
                hold,
                known,
                in_background=request.in_background,
            )

    async def UnloadExperts(
        self, request: expert_pb2.UnloadExpertsRequest, context: grpc.aio.ServicerContext
    ) -> expert_pb2.UnloadExpertsResponse:
        await self._library.unload(
            _keys(request.experts), request.expected_generation, request.operation
        )
        return expert_pb2.UnloadExpertsResponse(
            generation=self._hosting.generation,
            free_memory_bytes=self._free_bytes(self._hosting.num_hosted),
        )

    async def HoldPlanning(
        self, request: expert_pb2.HoldPlanningRequest, context: grpc.aio.ServicerContext
    ) -> expert_pb2.HoldPlanningResponse:
        planner = self._planning.ask(request.router, request.hold_nanos / 1e9)
        return expert_pb2.HoldPlanningResponse(planner=planner)

    def _hosting_response(self, snapshot: HostingSnapshot) -> expert_pb2.WatchHostingResponse:
        if self._newest.generation != snapshot.generation:
            self._newest = self._as_message(snapshot)
        return self._newest

    def _as_message(self, snapshot: HostingSnapshot) -> expert_pb2.WatchHostingResponse:
        experts = [
            expert_pb2.HostedExpert(
                layer=key.layer,
                expert=key.expert,
                content_hash=hosted.content_hash,
                state=STATES[hosted.state],
            )
            for key, hosted in snapshot.experts
        ]
        return expert_pb2.WatchHostingResponse(
            instance=self.instance,
            generation=snapshot.generation,
            experts=experts,
            free_memory_bytes=self._free_bytes(len(experts)),
            is_draining=snapshot.is_draining,
        )

    def _free_bytes(self, num_hosted: int) -> int:
        return self._bank.memory_bytes - num_hosted * self._bank.slot_bytes


def _keys(experts: Iterable[expert_pb2.ExpertId]) -> list[ExpertKey]:
    keys = [ExpertKey(entry.layer, entry.expert) for entry in experts]
    if not keys:
        raise InvalidRequest("experts is empty; name at least one")
    return keys


def _hold(request: expert_pb2.LoadExpertsRequest) -> Hold | None:
    if len(request.operation) > MAX_NAME_CHARACTERS:
        raise InvalidRequest(
            f"operation has {len(request.operation)} characters; the limit is {MAX_NAME_CHARACTERS}"
        )
    if request.hold_nanos > MAX_HOLD_SECONDS * 1e9:
        raise InvalidRequest(
            f"hold_nanos is {request.hold_nanos / 1e9:g} s; the limit is {MAX_HOLD_SECONDS:g} s, "
            "after which whoever holds asks again"
        )
    if request.operation:
        return Hold(request.operation, request.hold_nanos / 1e9)
    if request.hold_nanos:
        raise InvalidRequest(
            f"operation is empty, but hold_nanos is {request.hold_nanos}; name who holds the "
            "experts"
        )
    return None
