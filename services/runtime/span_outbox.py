"""Spans on their way to the collector: gathered for a moment, then sent together by a thread."""

import logging
import threading
from collections.abc import Sequence
from functools import partial

from opentelemetry.sdk.resources import Resource

from services.runtime.otlp.delivery import Delivery
from services.runtime.otlp.resource import encoded
from services.runtime.span_writing import encode_request

logger = logging.getLogger(__name__)

SCOPE = "moesaic"
SEND_EVERY_SECONDS = 1.0
# Some thousands of spans a message; collectors refuse more than 4 MiB unless told otherwise.
MAX_MESSAGE_BYTES = 1 << 20
# What waits while the collector is slow or gone; beyond that the newest spans are dropped.
MAX_WAITING_BYTES = 16 << 20


class SpanOutbox:
    """Takes encoded spans from any thread; what cannot be kept or sent is lost, and said once in
    the log.

    `resource` is the process that they are of. To be closed, which sends what is left and closes
    the `delivery`.
    """

    def __init__(
        self,
        resource: Resource,
        delivery: Delivery,
        *,
        send_every_seconds: float = SEND_EVERY_SECONDS,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._delivery = delivery
        self._encoded_resource = encoded(resource)
        self._send_every_seconds = send_every_seconds
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: list[bytes] = []
        self._num_bytes = 0
        self._is_dropping = False
        self._is_closed = False
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, spans: Sequence[bytes]) -> None:
        """Have spans sent soon; returns at once."""
        with self._lock:
            if self._num_bytes >= self._max_waiting_bytes:
                self._note_dropping()
                return
            self._waiting += spans
            self._num_bytes += sum(map(len, spans))
            is_much = self._num_bytes >= MAX_MESSAGE_BYTES
        if is_much:
            self._news.set()

    def close(self) -> None:
        """Send what waits, and end; takes as long as the delivery."""
        self._is_closed = True
        self._news.set()
        self._thread.join()
        self._delivery.close()

    def _run(self) -> None:
        while not self._is_closed:
            self._news.wait(self._send_every_seconds)
            self._news.clear()
            self._send()
        self._send()

    def _send(self) -> None:
        with self._lock:
            spans, self._waiting = self._waiting, []
            self._num_bytes, self._is_dropping = 0, False
        for message in _messages(spans):
            self._delivery.deliver(partial(encode_request, self._encoded_resource, SCOPE, message))

    def _note_dropping(self) -> None:
        if not self._is_dropping:
            logger.warning(
                "spans are dropped: the collector does not take them as fast as they are made"
            )
        self._is_dropping = True


def _messages(spans: Sequence[bytes]) -> list[list[bytes]]:
    """The spans in portions that fit in a message each."""
    portions: list[list[bytes]] = []
    left = 0
    for span in spans:
        if len(span) > left:
            portions.append([])
            left = MAX_MESSAGE_BYTES
        portions[-1].append(span)
        left -= len(span)
    return portions
