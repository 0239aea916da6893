"""One expert service as the router knows it: connected, described, watched, and connected again when it comes back."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.router.expert_stream import ExpertStream
from services.router.frame_deadline import FrameDeadline
from services.router.placement import ExpertKey
from services.runtime.channels import open_channel
from services.wire.errors import BadState, ServingError, from_rpc

logger = logging.getLogger(__name__)

DESCRIBE_SECONDS = 10.0
LOAD_SECONDS = 3600.0
RECONNECT_SECONDS = 0.25


@dataclass(frozen=True)
class Expected:
    """What a service must be to work for this router."""

    model_digest: str
    element_type: int
    hidden_size: int
    batch_invariant: bool


class ExpertPeer:
    """Keeps one address connected. `on_change` is called whenever what it hosts, or whether it is live, changes."""

    def __init__(
        self,
        address: str,
        expected: Expected,
        num_lanes: int,
        frame_floor_seconds: float,
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.streams: Sequence[ExpertStream] = ()
        self.description: expert_pb2.ExpertServiceDescribeResponse | None = None
        self.hosting = expert_pb2.WatchHostingResponse()
        self.refusal: ServingError | None = None
        self._expected = expected
        self._num_lanes = num_lanes
        self._deadline = FrameDeadline(frame_floor_seconds)
        self._on_change = on_change
        self._stub: expert_pb2_grpc.ExpertServiceStub | None = None
        self._watched = asyncio.Event()

    @property
    def is_live(self) -> bool:
        """Whether frames can be sent: all of its streams are up and its hosting is known."""
        return bool(self.streams) and all(stream.is_up for stream in self.streams) and self.hosting.generation > 0

    def ready_experts(self) -> dict[ExpertKey, bytes]:
        """What it serves now, with content hashes; nothing unless it is live."""
        if not self.is_live:
            return {}
        return {
            (hosted.layer, hosted.expert): hosted.content_hash
            for hosted in self.hosting.experts
            if hosted.state == expert_pb2.EXPERT_STATE_READY
        }

    async def run(self) -> None:
        """Connect, and again whenever the connection breaks, until cancelled."""
        while True:
            channel = open_channel(self.address)
            try:
                await self._live(channel)
            except* ServingError as group:
                self._note(group)
            except* grpc.aio.AioRpcError as group:
                self._note(group)
            finally:
                self.streams, self.description = (), None
                self.hosting = expert_pb2.WatchHostingResponse()
                await channel.close()
                self._watched.set()
                self._on_change()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def load(self, experts: Sequence[ExpertKey], progress: Callable[[int, int], None]) -> None:
        """Have it load experts. Raises ServingError when it refuses or is lost; its hosting is then what it was."""
        if self._stub is None:
            raise BadState(f"expert service {self.address} is not connected")
        request = expert_pb2.LoadExpertsRequest(
            expected_generation=self.hosting.generation,
            model_digest=self._expected.model_digest,
            experts=[expert_pb2.ExpertId(layer=layer, expert=expert) for layer, expert in experts],
        )
        generation = 0
        try:
            async for response in self._stub.LoadExperts(request, timeout=LOAD_SECONDS):
                progress(response.num_loaded, response.num_total)
                generation = response.generation
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        while self.is_live and self.hosting.generation < generation:
            self._watched.clear()
            await self._watched.wait()

    async def _live(self, channel: grpc.aio.Channel) -> None:
        self._stub = expert_pb2_grpc.ExpertServiceStub(channel)
        describe = expert_pb2.ExpertServiceDescribeRequest()
        description = await self._stub.Describe(describe, timeout=DESCRIBE_SECONDS, wait_for_ready=True)
        self._check(description)
        self.description, self.refusal = description, None
        streams = [ExpertStream(self.address, channel, self._deadline, self._on_change) for _ in range(self._num_lanes)]
        self.streams = streams
        logger.info("connected to expert service %s on %s", self.address, description.device)
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._watch(self._stub))
            for stream in streams:
                parts.create_task(stream.run())

    async def _watch(self, stub: expert_pb2_grpc.ExpertServiceStub) -> None:
        async for hosting in stub.WatchHosting(expert_pb2.WatchHostingRequest()):
            self.hosting = hosting
            self._watched.set()
            self._on_change()
        raise ServingError(f"expert service {self.address} ended its hosting watch")

    def _check(self, description: expert_pb2.ExpertServiceDescribeResponse) -> None:
        expected = self._expected
        for name, theirs, ours in (
            ("checkpoint", description.model_digest, expected.model_digest),
            ("dtype", description.dtype, expected.element_type),
            ("hidden_size", description.hidden_size, expected.hidden_size),
            ("batch_invariant", description.batch_invariant, expected.batch_invariant),
        ):
            if theirs != ours:
                raise BadState(
                    f"expert service {self.address} cannot be used: its {name} is {theirs}, the router's is {ours}"
                )

    def _note(self, group: BaseExceptionGroup) -> None:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        known = from_rpc(error) if isinstance(error, grpc.aio.AioRpcError) else error
        if isinstance(known, BadState) and str(known) != str(self.refusal):
            self.refusal = known
            logger.error("%s", known)
        elif self.description is not None:
            logger.warning("lost expert service %s: %s", self.address, known)
