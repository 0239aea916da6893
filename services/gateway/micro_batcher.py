"""Gives waiting sequences to routers: whichever has most credit gets the next batch."""

import time
from collections.abc import Iterable
from collections.abc import Sequence as Sequenced
from typing import Protocol

from opentelemetry import metrics

from services.gateway.sequence import Carrier, Sequence
from services.gateway.waiting import Room, WaitingQueue
from services.wire.errors import ServingError, Unavailable

BATCH_REQUESTS = "moesaic.gateway.batch.requests"
BATCH_TOKENS = "moesaic.gateway.batch.tokens"

_meter = metrics.get_meter(__name__)
_batch_requests = _meter.create_histogram(
    BATCH_REQUESTS,
    unit="{request}",
    description="requests given to a router at once",
    explicit_bucket_boundaries_advisory=(1, 2, 4, 8, 16, 32, 64, 128),
)
_batch_tokens = _meter.create_histogram(
    BATCH_TOKENS,
    unit="{token}",
    description="prompt tokens given to a router at once",
    explicit_bucket_boundaries_advisory=(16, 64, 256, 1_024, 4_096, 16_384, 65_536),
)


class Link(Carrier, Protocol):
    """A live router, as the dispatcher sees it."""

    @property
    def room(self) -> Room:
        """What it can take now; nothing while a batch is in flight to it."""

    @property
    def capacity(self) -> Room:
        """What it can take while it has nothing else."""

    def submit(self, batch: Sequenced[Sequence]) -> None:
        """Send a batch that fits in `room`."""


class MicroBatcher:
    """Owns the queue of sequences that wait for a router. Every method returns at once.

    A sequence that began at a router that is lost may be too large for all others: it waits for a
    larger one, apart, and keeps nobody else waiting.
    """

    def __init__(self, waiting: WaitingQueue) -> None:
        self._waiting = waiting
        self._too_large: set[Sequence] = set()
        self._links: set[Link] = set()

    def attach(self, link: Link) -> None:
        """A router is there; call `pump` once it has credit."""
        self._links.add(link)
        for sequence in self._too_large:
            self._waiting.put_back(sequence)
        self._too_large.clear()

    def detach(self, link: Link) -> None:
        """A router is gone."""
        self._links.discard(link)

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence, and send it now if a router has room."""
        self._waiting.add(sequence)
        self.pump()

    def give_up(self, sequence: Sequence) -> None:
        """Nobody waits for it any more. May be called at any time, also when it has ended."""
        sequence.is_given_up = True
        sequence.place.leave()
        self._waiting.discard(sequence)
        self._too_large.discard(sequence)
        if sequence.carrier is not None:
            sequence.carrier.cancel(sequence)
        else:
            sequence.fail(Unavailable("nobody waits for it any more"))  # nothing follows
        self.pump()  # what stood behind it may fit

    def put_back(self, sequences: Iterable[Sequence]) -> None:
        """Give sequences that a router did not end their old places."""
        for sequence in sequences:
            sequence.put_back()
            self._waiting.put_back(sequence)
        self.pump()

    def fail_waiting(self, error: ServingError) -> None:
        """End everything that waits."""
        for sequence in [*self._waiting.drain(), *self._too_large]:
            sequence.place.leave()
            sequence.fail(error)
        self._too_large.clear()

    def pump(self) -> None:
        """Send what the routers have room for."""
        now_seconds = time.monotonic()
        while (head := self._waiting.head(now_seconds)) is not None:
            free = [link for link in self._links if link.room.fits(head)]
            if free:
                link = max(free, key=lambda link: (link.room.kv_tokens, link.room.sequences))
                self._send(link, self._waiting.take_batch(link.room, now_seconds))
            elif self._links and not any(link.capacity.fits(head) for link in self._links):
                self._too_large.add(self._waiting.take(head))
            else:
                return

    def _send(self, link: Link, batch: Sequenced[Sequence]) -> None:
        now_nanos = time.monotonic_ns()
        for sequence in batch:
            sequence.take(link, now_nanos)
        link.submit(batch)
        _batch_requests.record(len(batch))
        _batch_tokens.record(sum(len(sequence.order.prompt_token_ids) for sequence in batch))
