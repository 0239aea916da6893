"""Keeps a stream to one router: describe, run, and again when it breaks."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence as Sequenced
from contextlib import closing
from functools import partial
from typing import Protocol

from moesaic.v1 import router_pb2 as pb
from services.gateway.ledger import StreamLedger
from services.gateway.router_watch import RouterWatch
from services.gateway.sequence import Sequence
from services.gateway.waiting import Room
from services.runtime.calls import as_serving_errors, parsed
from services.runtime.connecting import connected_to
from services.runtime.failures import failure_of
from services.runtime.own_task import run_in_own_task
from services.runtime.renewal import Renewal
from services.runtime.roles import Role
from services.runtime.service_calls import ServiceCall, ServiceConnection
from services.runtime.tls_files import TlsFiles
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

DESCRIBE = "/moesaic.v1.RouterService/Describe"
RUN = "/moesaic.v1.RouterService/Run"
# For a connection, for an answer that needs no computing, and for a write that the router's flow
# control lets through.
ANSWER_SECONDS = 10.0
MIN_PAUSE_SECONDS = 0.1
# Requests wait for a router that starts again: it is not to be ready for long before it is found.
MAX_PAUSE_SECONDS = 0.25


class _Retired(Exception):
    """The stream is needed no longer."""


class LinkOwner(Protocol):
    """Where a link reports to."""

    def wants(self, address: str) -> bool:
        """Whether a router at this address is still to be connected to."""

    def check(self, description: pb.RouterServiceDescribeResponse) -> None:
        """Raises BadState when the router runs another model than the gateway serves."""

    def link_up(self, link: "RouterLink") -> None:
        """The router is described and has given its first credit; raises BadState as
        `check` does.
        """

    def link_down(self, link: "RouterLink", going_on: Sequenced[Sequence]) -> None:
        """The stream broke, if there was one; `going_on` can go on elsewhere."""

    def credit_changed(self, given_back: Sequenced[Sequence]) -> None:
        """The router may have room again; it has given some sequences back."""

    def has_another(self, link: "RouterLink") -> bool:
        """Whether another router is up."""

    def outlived(self, link: "RouterLink") -> None:
        """The certificates that the link was made with have been replaced: another one is to be
        made, and this one to `retire` once that is up.
        """


class RouterLink:
    """One router, as long as it is wanted. While it is up, `room` says what it can take."""

    def __init__(self, address: str, owner: LinkOwner, tls: TlsFiles | None = None) -> None:
        self.address = address
        self._tls = tls
        self._name = f"the router at {address}"
        self.description = pb.RouterServiceDescribeResponse()
        self._owner = owner
        self._ledger = StreamLedger(address)
        self._watch = RouterWatch(self._name)
        self._has_credit = asyncio.Event()
        self._something_to_say = asyncio.Event()
        self._is_retiring = False
        self._is_empty = asyncio.Event()  # and is retiring
        self._last_complaint = ""

    @property
    def room(self) -> Room:
        """What the router can take now."""
        return Room() if self._is_retiring else self._ledger.room

    @property
    def capacity(self) -> Room:
        """What the router can take while it has nothing else."""
        return Room(self.description.max_sequences, self.description.kv_tokens)

    @property
    def num_sequences(self) -> int:
        """Sequences that the router has."""
        return len(self._ledger)

    @property
    def free_kv_tokens(self) -> int:
        """KV cache that the router said last is free."""
        return self._ledger.free_kv_tokens

    def retire(self) -> None:
        """Take no more sequences, and end with the last one that is there."""
        self._is_retiring = True
        self._leave_if_empty()

    def submit(self, batch: Sequenced[Sequence]) -> None:
        """Send a batch that fits in `room`."""
        self._ledger.submit(batch)
        self._watch.note_work(self._ledger.num_awaited_tokens)
        self._something_to_say.set()

    def cancel(self, sequence: Sequence) -> None:
        """Tell the router that nobody waits for a sequence any more."""
        self._ledger.cancel(sequence)
        self._something_to_say.set()

    async def run(self) -> None:
        """Connect, and connect again with growing pauses, until the owner no longer wants the
        address, or has had it retire.
        """
        pause = MIN_PAUSE_SECONDS
        while self._owner.wants(self.address) and not self._is_retiring:
            was_up = await run_in_own_task(self._converse())
            pause = MIN_PAUSE_SECONDS if was_up else min(2 * pause, MAX_PAUSE_SECONDS)
            await asyncio.sleep(random.uniform(pause / 2, pause))

    async def _converse(self) -> bool:
        """Speak with the router until it cannot be spoken with; whether it could at all."""
        self._has_credit = asyncio.Event()
        was_up = False
        try:
            renewal = Renewal(self._tls)
            async with connected_to(
                self.address,
                self._name,
                timeout_seconds=ANSWER_SECONDS,
                tls=self._tls,
                server_name=Role.ROUTER.server_name,
            ) as connection:
                self.description = await self._describe(connection, ANSWER_SECONDS)
                self._owner.check(self.description)
                self._ledger = StreamLedger(self.address, self.description)
                with closing(connection.call(RUN)) as call:
                    async with asyncio.TaskGroup() as ways:
                        # No deadline: an idle stream is silent, and the connection notices a
                        # router that vanished.
                        ways.create_task(call.deliver(self._receive))
                        await self._first_credit()
                        self._went_up(connection.kind)
                        was_up = True
                        ways.create_task(self._write_all(call))
                        ways.create_task(self._look_after(connection))
                        ways.create_task(self._tell_when_due(renewal))
                        await self._is_empty.wait()
                        raise _Retired
        except Exception as error:  # noqa: BLE001 -- the boundary of one router: whatever it says ends its stream alone
            if not self._is_empty.is_set():
                self._complain(failure_of(error, f"the stream to {self._name}"))
        finally:
            self._owner.link_down(self, self._closed())
        return was_up

    def _closed(self) -> list[Sequence]:
        return self._ledger.close(time.monotonic_ns(), was_slow=self._watch.has_given_up)

    async def _look_after(self, connection: ServiceConnection) -> None:
        ask = partial(self._describe, connection)
        await self._watch.run(ask, partial(self._owner.has_another, self))

    async def _describe(
        self, connection: ServiceConnection, timeout_seconds: float
    ) -> pb.RouterServiceDescribeResponse:
        request = pb.RouterServiceDescribeRequest().SerializeToString()
        described = await connection.ask(DESCRIBE, request, timeout_seconds=timeout_seconds)
        return parsed(pb.RouterServiceDescribeResponse, described, self._name)

    async def _first_credit(self) -> None:
        with as_serving_errors(self._name):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._has_credit.wait()

    async def _tell_when_due(self, renewal: Renewal) -> None:
        await renewal.due()
        self._owner.outlived(self)

    def _leave_if_empty(self) -> None:
        if self._is_retiring and not len(self._ledger):
            self._is_empty.set()

    async def _write_all(self, call: ServiceCall) -> None:
        # The only writer: gRPC takes one outstanding write for each stream.
        with as_serving_errors(self._name):
            while True:
                await self._something_to_say.wait()
                self._something_to_say.clear()
                while (message := self._ledger.next_message()) is not None:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await call.send(message.SerializeToString())

    def _receive(self, message: bytes, arrived: int | None) -> None:
        response = parsed(pb.RunResponse, message, self._name)
        now = time.monotonic_ns() if arrived is None else arrived
        self._watch.hear(of_work=bool(response.events))
        given_back = self._ledger.apply(response, now_nanos=now)
        self._watch.note_work(self._ledger.num_awaited_tokens)
        self._has_credit.set()
        self._leave_if_empty()
        if given_back or response.HasField("credit"):
            self._owner.credit_changed(given_back)

    def _went_up(self, kind: str) -> None:
        self._watch.begin()
        self._owner.link_up(self)
        logger.info("router %s is up, on a %s connection", self.address, kind)
        self._last_complaint = ""

    def _complain(self, error: ServingError) -> None:
        complaint = str(error)
        if complaint != self._last_complaint:  # once, not at each attempt
            logger.warning("router %s cannot be used: %s", self.address, complaint)
        self._last_complaint = complaint
