"""One gateway's stream: orders in, tokens out, with a credit that says what may come next."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from moesaic.v1 import router_pb2
from services.router.engine.engine import Engine
from services.router.engine.sequence import Ending, EndReason, Sequence
from services.router.engine.step import Step
from services.router.orders import order_of
from services.router.reports import report_finish, report_token
from services.runtime.failures import failure_of
from services.wire.errors import InvalidRequest, ServingError

MAX_UNREAD_EVENTS = 4096
# Of one message, which has to be small enough to be sent, the experts of each token included.
MAX_EVENTS = 1024


class Session:
    """What one stream has in flight. When the stream ends, so does every sequence that came by it.

    Events wait in the outbox while the gateway reads slowly; tokens are bounded by the KV tokens of
    the session's own sequences, and a gateway that leaves too many events unread is not read from.
    """

    def __init__(
        self,
        engine: Engine,
        vocab_size: int,
        *,
        max_events: int = MAX_EVENTS,
        max_unread_events: int = MAX_UNREAD_EVENTS,
    ) -> None:
        self._engine = engine
        self._vocab_size = vocab_size
        self._max_events = max_events
        self._max_unread_events = max_unread_events
        self._sequences: dict[int, Sequence] = {}
        self._names: dict[int, int] = {}  # the router's number -> the gateway's
        self._outbox = router_pb2.RunResponse()  # what is to be said next, but for the credit
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._num_submits = 0
        self._has_scores = False  # a prompt's are, or were, in the outbox

    async def run(
        self, requests: AsyncIterator[router_pb2.RunRequest]
    ) -> AsyncGenerator[router_pb2.RunResponse, None]:
        """Serve until the gateway ends the stream; raises InvalidRequest when it breaks the
        contract.
        """
        self._engine.room_watchers.add(self._news)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(requests))
                sent_credit = router_pb2.Credit()
                while True:
                    self._news.clear()
                    response = self._take_outbox()
                    credit = self._credit()
                    if credit != sent_credit:
                        sent_credit = credit
                        response.credit.CopyFrom(credit)
                    if response.ListFields():
                        yield response
                    if self._outbox.events:
                        continue
                    if reading.done() and not self._sequences:
                        break
                    await self._news.wait()
        except* GeneratorExit:
            pass  # closed while it was writing: the group has cancelled the reader
        finally:
            self._engine.room_watchers.discard(self._news)
            self._engine.room_sharers.discard(self._news)
            for sequence in list(self._sequences.values()):
                self._engine.cancel(sequence)

    def _take_outbox(self) -> router_pb2.RunResponse:
        """What is to be said next, no more than fits in a message."""
        response, num_events = self._outbox, self._max_events
        if self._has_scores:  # a prompt's are many, and not to share a message with another's
            scored = (
                event.HasField("token") and event.token.prompt_logprobs for event in response.events
            )
            num_events = min(
                num_events, next((n for n, each in enumerate(scored, 1) if each), num_events)
            )
        self._outbox = router_pb2.RunResponse(events=response.events[num_events:])
        del response.events[num_events:]
        self._has_scores = self._has_scores and bool(self._outbox.events)
        self._taken.set()
        return response

    async def _read(self, requests: AsyncIterator[router_pb2.RunRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("action"):
                case "submit":
                    self._submit(request.submit)
                case "cancel":
                    for name in request.cancel.sequences:
                        if name in self._sequences:
                            self._engine.cancel(self._sequences[name])
                case _:
                    raise InvalidRequest("action is not set: a RunRequest is a submit or a cancel")
            while len(self._outbox.events) > self._max_unread_events:
                self._taken.clear()
                await self._taken.wait()
        self._news.set()

    def _submit(self, submit: router_pb2.Submit) -> None:
        self._num_submits += 1
        for request in submit.sequences:
            if request.sequence in self._sequences:
                raise InvalidRequest(
                    f"sequence {request.sequence} is in flight already on this stream"
                )
            seconds = request.remaining_nanos / 1e9 if request.remaining_nanos else None
            try:
                order = order_of(request, self._vocab_size)
                sequence = self._engine.submit(order, self._listen, seconds)
            except Exception as error:  # noqa: BLE001 -- the boundary of one sequence
                self._refuse(request.sequence, failure_of(error, "taking a sequence in"))
            else:
                self._sequences[request.sequence] = sequence
                self._engine.room_sharers.add(self._news)
                self._names[sequence.number] = request.sequence
        self._news.set()

    def _listen(self, sequence: Sequence, token: int | None, step: Step | None) -> None:
        name, num_before = self._names[sequence.number], len(self._outbox.events)
        try:
            if token is not None:
                self._has_scores |= bool(sequence.prompt_scores)
                report_token(self._outbox, name, sequence, token, step)
            else:
                assert sequence.ending is not None, "without a token it is the end"
                del self._sequences[name], self._names[sequence.number]
                if not self._sequences:
                    self._engine.room_sharers.discard(self._news)
                report_finish(self._outbox, name, sequence.ending, sequence)
        except Exception as error:  # the boundary of one sequence; what is raised ends it
            del self._outbox.events[num_before:]
            if token is not None:
                raise
            self._refuse(name, failure_of(error, "the report of a sequence"))
        self._news.set()

    def _refuse(self, name: int, error: ServingError) -> None:
        report_finish(self._outbox, name, Ending(EndReason.ERROR, error))

    def _credit(self) -> router_pb2.Credit:
        room = self._engine.room()
        # Those that have nothing in flight take no share from those that have.
        num_gateways = len({*self._engine.room_sharers, self._news})
        return router_pb2.Credit(
            # Gateways share what is free; at least one sequence, or none of them could ever begin.
            sequences=min(room.sequences, max(1, room.sequences // num_gateways)),
            kv_tokens=room.kv_tokens,
            acknowledged_submits=self._num_submits,
        )
