"""One expert service as the router knows it: connected, described, watched, and connected again when it comes back."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from moesaic.v1 import common_pb2, expert_pb2, expert_pb2_grpc
from services.router.call_failures import as_serving_errors
from services.router.expert_stream import ExpertStream
from services.router.frame_deadline import FrameDeadline
from services.router.placement import ExpertKey
from services.runtime.channels import open_channel
from services.wire.errors import BadState, DeadlinePassed, ServingError, Unavailable
from services.wire.frames import DTYPES
from services.wire.row_bytes import type_name

logger = logging.getLogger(__name__)

DESCRIBE_SECONDS = 10.0
# Between two responses of a load: an expert is read, from a slow disk perhaps, behind another router's.
LOAD_PROGRESS_SECONDS = 120.0
# How long a service may take to show the hosting it has, or the one that a load it ended has made.
HOSTING_SECONDS = 10.0
RECONNECT_SECONDS = 0.25
MAX_RECONNECT_SECONDS = 2.0


@dataclass(frozen=True)
class Expected:
    """What a service must be to work for this router.

    Rows travel in `wire_type`; with `sums_pairs` frames carry their pairs' weights.
    """

    model_digest: str
    element_type: int
    wire_type: "common_pb2.ElementType.ValueType"
    sums_pairs: bool
    hidden_size: int
    batch_invariant: bool
    moe_layers: tuple[int, ...]
    num_experts: int


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
        self._num_failures = 0  # connections in a row that answered no frame

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
                self._note(_first_of(group))
            finally:
                self._num_failures = (
                    0 if any(stream.has_answered for stream in self.streams) else self._num_failures + 1
                )
                self.streams, self.description, self._stub = (), None, None
                self.hosting = expert_pb2.WatchHostingResponse()
                await channel.close()
                self._watched.set()
                self._on_change()
            await asyncio.sleep(min(MAX_RECONNECT_SECONDS, RECONNECT_SECONDS * 2 ** min(self._num_failures, 8)))

    async def load(self, experts: Sequence[ExpertKey], progress: Callable[[int, int], None]) -> None:
        """Have it load experts. Raises ServingError when it refuses, stalls or is lost; nothing has changed then."""
        if self._stub is None:
            raise Unavailable(f"expert service {self.address} is not connected")
        request = expert_pb2.LoadExpertsRequest(
            expected_generation=self.hosting.generation,
            model_digest=self._expected.model_digest,
            experts=[expert_pb2.ExpertId(layer=layer, expert=expert) for layer, expert in experts],
        )
        instance, generation = self.hosting.instance, 0
        call = self._stub.LoadExperts(request)
        try:
            with as_serving_errors(self.address):
                while (response := await _next_of(call)) is not None:
                    progress(response.num_loaded, response.num_total)
                    generation = response.generation
                async with asyncio.timeout(HOSTING_SECONDS):
                    while self.hosting.instance == instance and self.hosting.generation < generation:
                        self._watched.clear()
                        await self._watched.wait()
        finally:
            call.cancel()

    async def _live(self, channel: grpc.aio.Channel) -> None:
        stub = expert_pb2_grpc.ExpertServiceStub(channel)
        with as_serving_errors(self.address):
            describe = expert_pb2.ExpertServiceDescribeRequest()
            description = await stub.Describe(describe, timeout=DESCRIBE_SECONDS, wait_for_ready=True)
        self._check(description)
        self.description, self.refusal, self._stub = description, None, stub
        streams = [ExpertStream(self.address, channel, self._deadline, self._on_change) for _ in range(self._num_lanes)]
        self.streams = streams
        logger.info("connected to expert service %s on %s", self.address, description.device)
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._watch(stub, description.instance))
            for stream in streams:
                parts.create_task(stream.run())

    async def _watch(self, stub: expert_pb2_grpc.ExpertServiceStub, instance: str) -> None:
        call = stub.WatchHosting(expert_pb2.WatchHostingRequest())
        with as_serving_errors(self.address):
            async with asyncio.timeout(HOSTING_SECONDS) as first:
                async for hosting in call:
                    first.reschedule(None)  # from here on it speaks when there is something to say
                    self._take(hosting, instance)
        raise Unavailable(f"expert service {self.address} ended its hosting watch")

    def _take(self, hosting: expert_pb2.WatchHostingResponse, instance: str) -> None:
        if hosting.instance != instance:
            raise Unavailable(f"expert service {self.address} was started again while being connected to")
        expected = self._expected
        for hosted in hosting.experts:
            if hosted.layer not in expected.moe_layers or hosted.expert >= expected.num_experts:
                raise BadState(
                    f"expert service {self.address} cannot be used: it hosts expert {hosted.expert} of layer "
                    f"{hosted.layer}, which the model does not have"
                )
        self.hosting = hosting
        self._watched.set()
        self._on_change()

    def _check(self, description: expert_pb2.ExpertServiceDescribeResponse) -> None:
        expected = self._expected
        for name, theirs, ours in (
            ("checkpoint", description.model_digest, expected.model_digest),
            ("dtype", description.dtype, expected.element_type),
            ("hidden_size", description.hidden_size, expected.hidden_size),
            ("batch_invariant", description.batch_invariant, expected.batch_invariant),
            ("moe_layers", tuple(description.moe_layers), expected.moe_layers),
            ("num_experts", description.num_experts, expected.num_experts),
            ("number of expert_bytes", len(description.expert_bytes), len(expected.moe_layers)),
        ):
            if theirs != ours:
                raise BadState(
                    f"expert service {self.address} cannot be used: its {name} is {theirs}, the router's is {ours}"
                )
        taken = description.frame_dtypes or [description.dtype]
        if expected.wire_type not in taken:
            raise BadState(
                f"expert service {self.address} cannot be used: it takes rows in "
                f"{' or '.join(map(_name, taken))}, the router's wire_dtype is {_name(expected.wire_type)}"
            )
        if expected.sums_pairs and not description.sums_pairs:
            raise BadState(
                f"expert service {self.address} cannot be used: it does not sum pairs, which combine=partial needs"
            )

    def _note(self, error: ServingError) -> None:
        is_absent = isinstance(error, Unavailable | DeadlinePassed)
        if isinstance(error, BadState) or (self.description is None and not is_absent):
            if str(error) != str(self.refusal):
                logger.error("expert service %s: %s", self.address, error)
            self.refusal = error
        elif self.description is not None:
            logger.warning("lost expert service %s: %s", self.address, error)


def _name(element_type: "common_pb2.ElementType.ValueType") -> str:
    return type_name(DTYPES[element_type]) if element_type in DTYPES else f"type {element_type}"


async def _next_of(call: grpc.aio.UnaryStreamCall) -> expert_pb2.LoadExpertsResponse | None:
    async with asyncio.timeout(LOAD_PROGRESS_SECONDS):
        response = await call.read()
    return None if response is grpc.aio.EOF else response


def _first_of(error: BaseException) -> ServingError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ServingError), "the group was split by its type"
    return error
