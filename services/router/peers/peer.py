"""One expert service as the router knows it: connected, described, watched, and connected again
when it comes back.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import grpc

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.router.peers.absence import Attempts, Past, pause_seconds
from services.router.peers.expected import Expected
from services.router.peers.frame_deadline import FrameDeadline
from services.router.peers.grpc_transport import GrpcTransport
from services.router.peers.hosting_calls import HostingCalls
from services.router.peers.known_hosting import Ready
from services.router.peers.pace import Pace
from services.router.peers.patience import PATIENCE, Patience
from services.router.peers.renewal_turns import RenewalTurn, RenewalTurns
from services.router.peers.service_behaviour import ServiceBehaviour
from services.router.peers.stream import ExpertStream
from services.router.peers.stream_transports import stream_transports
from services.router.peers.suspicion import Suspicion
from services.router.peers.trial import keep_trying
from services.router.peers.trust import Standing, Trust
from services.runtime.calls import as_serving_errors, readable
from services.runtime.channels import open_channel
from services.runtime.connected_socket import connected_socket
from services.runtime.failures import failure_of
from services.runtime.host_port import split_host_port
from services.runtime.own_task import run_in_own_task
from services.runtime.renewal import CertificatesReplaced, Renewal
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles
from services.wire.errors import BadState, DeadlinePassed, ServingError, Unavailable
from services.wire.expert_key import ExpertKey
from services.wire.quoting import one_line

logger = logging.getLogger(__name__)

# Before a connection that broke is made again; doubled for each that answered no frame.
RECONNECT_SECONDS = 0.05
MAX_RECONNECT_SECONDS = 2.0
# Until a service has answered a frame, the floor of a frame's deadline is so many times as high.
UNMEASURED = 25.0
MAX_DEVICE_BYTES = 200

Description: TypeAlias = expert_pb2.ExpertServiceDescribeResponse
Stub: TypeAlias = expert_pb2_grpc.ExpertServiceStub


class ExpertPeer(HostingCalls):
    """Keeps one address connected, and tries it before it is used.

    `on_change` is called whenever what it hosts changes, or whether it is live or usable. With
    other peers it shares `attempts`, and the turns in which they are connected to anew.
    """

    def __init__(
        self,
        address: str,
        expected: Expected,
        num_lanes: int,
        frame_floor_seconds: float,
        on_change: Callable[[], None],
        *,
        patience: Patience = PATIENCE,
        attempts: Attempts | None = None,
        renewal_turns: RenewalTurns | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        super().__init__(address, expected, patience)
        self._attempts = attempts or Attempts()
        self._renewal_turns = renewal_turns or RenewalTurns(patience.renewal_seconds)
        self._renewal_turn: RenewalTurn | None = None
        self._past = Past.NEW
        self._absent_since: float | None = None  # by the monotonic clock
        self.streams: Sequence[ExpertStream] = ()
        self.pace = Pace()
        self.trust = Trust(address, self._on_change)
        self.description: Description | None = None
        self.refusal: ServingError | None = None
        self._num_lanes = num_lanes
        self._tls = tls
        self._frame_floor_seconds = frame_floor_seconds
        self._on_any_change = on_change
        self._suspicion: Suspicion | None = None
        self._num_failures = 0  # connections in a row that answered no frame

    @property
    def is_live(self) -> bool:
        """Whether it is connected: all of its streams are up and its hosting is known."""
        return (
            bool(self.streams)
            and all(stream.is_up for stream in self.streams)
            and self.hosting.generation > 0
        )

    @property
    def is_suspect(self) -> bool:
        """Whether it is avoided: a frame's deadline passed and it has said nothing since, or it is
        quarantined.
        """
        is_silent = self._suspicion is not None and self._suspicion.is_suspect
        return is_silent or self.trust.is_quarantined

    @property
    def is_usable(self) -> bool:
        """Whether frames should be sent. Who hosts nothing yet can be given experts untried."""
        return self.is_live and not self.is_suspect and not self.is_being_tried

    @property
    def is_being_tried(self) -> bool:
        """Whether it hosts experts, and has not shown yet that it computes."""
        return self.trust.standing is Standing.UNTRIED and bool(self._hosting.ready)

    @property
    def is_draining(self) -> bool:
        """Whether it waits for its experts to be hosted elsewhere, so that it can stop."""
        return self.hosting.is_draining

    @property
    def numerics_fingerprint(self) -> str:
        """What its outputs' bits hold for, by its own word; empty while that is not known."""
        return "" if self.description is None else self.description.numerics_fingerprint

    @property
    def ready(self) -> Mapping[int, Ready]:
        """Which experts are ready, for each layer that it has any of; nothing unless it is live."""
        return self._hosting.ready if self.is_live else {}

    @property
    def content_hashes(self) -> Mapping[ExpertKey, bytes]:
        """Of the experts that are ready; nothing unless it is live."""
        return self._hosting.content_hashes if self.is_live else {}

    async def run(self) -> None:
        """Connect, and again whenever the connection breaks, until cancelled."""
        while True:
            channel: grpc.aio.Channel | None = None
            try:
                await self._attempts.turn(self._past)
                await self._until_it_listens()
                renewal = Renewal(self._tls)
                channel = open_channel(
                    self.address, tls=self._tls, server_name=Role.EXPERT.server_name
                )
                await run_in_own_task(self._live(channel, renewal))
            except Exception as error:  # noqa: BLE001 -- the boundary of one peer: whatever it says ends its connection alone
                self._note(failure_of(error, f"the connection to {self._name}"))
            finally:
                pause = self._forget()
                if channel is not None:
                    await channel.close()
            await asyncio.sleep(pause)

    async def _until_it_listens(self) -> None:
        """Raises Unavailable where nobody does: a channel of gRPC's is dear to find that out by."""
        _, port = split_host_port(self.address)
        seconds = self._patience.describe_seconds
        (await connected_socket(self.address, port, timeout_seconds=seconds)).close()

    async def _live(self, channel: grpc.aio.Channel, renewal: Renewal) -> None:
        stub = Stub(channel)
        description = await self._describe(stub, self._patience.describe_seconds)
        self._expected.check(self.address, description)
        self._attempts.give_back()
        self._past = Past.REACHED
        description.device = one_line(description.device, MAX_DEVICE_BYTES)
        self.description, self.refusal, self._stub = description, None, stub
        self.trust.connect(description.instance)
        # Made anew with each connection: what is there now may be another process, which is cold.
        deadline = FrameDeadline(self._frame_floor_seconds, unmeasured=UNMEASURED)
        suspicion = self._suspicion = Suspicion(
            self.address, deadline, self._on_change, on_probed=self.trust.doubt
        )
        behaviour = ServiceBehaviour(deadline, self.pace, suspicion, self.trust)
        over_grpc = partial(GrpcTransport, channel, self._name)
        lanes, patience, tls = self._num_lanes, self._patience, self._tls
        async with (
            stream_transports(
                self.address, description, lanes, over_grpc, patience, tls
            ) as connects,
            asyncio.TaskGroup() as parts,
        ):
            self.streams = [
                ExpertStream(
                    self.address,
                    connect,
                    behaviour,
                    self._on_change,
                    first_grant_seconds=patience.first_grant_seconds,
                )
                for connect in connects
            ]
            parts.create_task(self._watch(stub, description.instance))
            parts.create_task(self._end_when_due(renewal))
            parts.create_task(suspicion.probe(partial(self._describe, stub)))
            parts.create_task(keep_trying(self.trust, self._expected, self._to_try, self._news))
            for stream in self.streams:
                parts.create_task(stream.run())

    async def _end_when_due(self, renewal: Renewal) -> None:
        """Break the connection after its certificates have been replaced, once the service that had
        its turn before is used again; what it has in flight is sent again.
        """
        await renewal.due()
        self._renewal_turn = await self._renewal_turns.next()
        raise CertificatesReplaced(f"{self._name} is connected to anew, by new certificates")

    def _forget(self) -> float:
        """The connection is gone; how many seconds to wait before the next."""
        was_connected = self.description is not None
        has_answered = any(stream.has_answered for stream in self.streams)
        self.streams, self.description, self._stub, self._suspicion = (), None, None, None
        self._hosting.forget()
        if self._renewal_turn is not None:
            self._renewal_turn.go_away()
        if not was_connected:
            now = time.monotonic()
            self._absent_since = self._absent_since or now
            self._past = Past.REACHED if self._past is Past.REACHED else Past.IN_VAIN
            return pause_seconds(now - self._absent_since)
        self._absent_since = None
        self._num_failures = 0 if has_answered else self._num_failures + 1
        self._on_change()
        return min(MAX_RECONNECT_SECONDS, RECONNECT_SECONDS * (1 << min(self._num_failures, 8)))

    def _to_try(self) -> tuple[ExpertStream, Collection[ExpertKey]] | None:
        """A stream that is up, and the experts that are ready."""
        ready = self.content_hashes
        if not ready or (self._suspicion is not None and self._suspicion.is_suspect):
            return None
        return self.streams[0], ready.keys()

    def _on_change(self) -> None:
        if self._renewal_turn is not None and self.is_usable:
            self._renewal_turn.come_back()
        self._news.send()
        self._on_any_change()

    async def _describe(self, stub: Stub, timeout_seconds: float) -> Description:
        request = expert_pb2.ExpertServiceDescribeRequest()
        with as_serving_errors(self._name):
            description: Description | None = await stub.Describe(request, timeout=timeout_seconds)
        return readable(description, self._name)

    async def _watch(self, stub: Stub, instance: str) -> None:
        call = stub.WatchHosting(expert_pb2.WatchHostingRequest())
        with as_serving_errors(self._name):
            async with asyncio.timeout(self._patience.hosting_seconds) as first:
                async for hosting in call:
                    first.reschedule(None)  # from here on it speaks when there is something to say
                    self._take(readable(hosting, self._name), instance)
        raise Unavailable(f"expert service {self.address} ended its hosting watch")

    def _take(self, hosting: expert_pb2.WatchHostingResponse, instance: str) -> None:
        if hosting.instance != instance:
            raise Unavailable(
                f"expert service {self.address} was started again while being connected to"
            )
        self._expected.check_hosting(self.address, hosting)
        self._hosting.take(hosting)
        self._on_change()

    def _note(self, error: ServingError) -> None:
        is_absent = isinstance(error, Unavailable | DeadlinePassed)
        if isinstance(error, BadState) or (self.description is None and not is_absent):
            if str(error) != str(self.refusal):
                logger.error("expert service %s: %s", self.address, error)
                self.refusal = error
                self._on_change()
        elif isinstance(error, CertificatesReplaced):
            logger.info("%s", error)
        elif self.description is not None:
            logger.warning("lost expert service %s: %s", self.address, error)
