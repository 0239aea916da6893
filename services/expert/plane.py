"""The native data plane: a port of its own for `Dispatch`, served by a thread that needs no
interpreter.

The thread answers usual frames. It hands over what is unusual, which is answered as on the main
port.
"""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import IntEnum
from itertools import count
from typing import Any

from services.expert import metrics, plane_listener, plane_records
from services.expert.admission import Contract, Slots
from services.expert.batcher import Batcher
from services.expert.plane_stream import Command, PlaneStream
from services.kernels import GatedExperts
from services.runtime import tls_contexts
from services.runtime.failures import aside, failure_of
from services.runtime.renewal import LOOK_SECONDS
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.tls_contexts import ServerTls
from services.runtime.tls_files import TlsFiles
from services.wire import native_streams
from services.wire.errors import ServingError
from services.wire.frames import ELEMENT_TYPES
from services.wire.header_blocks import HeaderDecoder
from services.wire.tls import Verified, verified

try:
    from services.expert import _plane as _plane
except ImportError:  # no compiler was there at install time, or the system is another
    _plane = None  # type: ignore[assignment]

# Between two looks at what the thread noted.
RECORD_SECONDS = 0.1
# For a peer that connects, to shake hands and to say that it speaks HTTP/2.
SILENT_SECONDS = 20.0


def is_available() -> bool:
    """Whether native streams are on, and the module was built."""
    return native_streams.ENABLED and _plane is not None


class Event(IntEnum):
    """What the native thread tells; the numbers are handover.h's."""

    STREAM_OPENED = 1
    MESSAGE = 2
    STREAM_GONE = 3
    CONNECTION_GONE = 4
    SETTLED = 5
    THREAD_ENDED = 6
    COUNTED_MESSAGE = 7
    PEER_NAMED = 8
    BLOCK_PASSED_OVER = 9


class Plane:
    """Serves native streams where they are on, the module was built, and its kernel computes such
    experts.

    `experts` are the kernel's, None where there is none for such experts; up to `most_compiled`
    pairs for each active expert of a batch it computes, torch the others. Experts of no width
    make zeros, in `held_nanos` for a batch, for each expert in it and for each pair. `port` is 0
    where, or while, there is none.
    """

    def __init__(
        self,
        contract: Contract,
        slots: Slots,
        batcher: Batcher,
        *,
        experts: GatedExperts | None,
        most_compiled: float,
        window_pairs: int,
        max_waiting_pairs: int,
        held_nanos: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.port = 0
        self._experts = experts
        self._most_compiled = most_compiled
        self._contract = contract
        self._slots = slots
        self._batcher = batcher
        self._window_pairs = window_pairs
        self._max_waiting_pairs = max_waiting_pairs
        self._held_nanos = held_nanos
        self._native: Any = None  # while its thread runs
        self._streams: dict[int, PlaneStream] = {}
        self._decoders: dict[int, HeaderDecoder] = {}  # of connections
        self._settling: dict[int, Callable[[], None]] = {}
        self._numbers = count(1)
        self._ended = asyncio.Event()
        self._drain_by = 0.0
        self._tls: ServerTls | None = None
        self._context: Any = None  # that the thread has
        self._peers: dict[int, Verified] = {}  # of connections with TLS

    @property
    def is_usable(self) -> bool:
        """Whether there can be a native plane for these experts."""
        return is_available() and self._experts is not None

    @asynccontextmanager
    async def serving(
        self,
        listen: str,
        port: int,
        record_seconds: float = RECORD_SECONDS,
        tls: TlsFiles | None = None,
        silent_seconds: float = SILENT_SECONDS,
    ) -> AsyncIterator[None]:
        """Serve on `port`, 0 for any, of the host of `listen` until the block ends; then wait until
        all is drained, if `drain` was called. What the thread noted is recorded every
        `record_seconds`. With `tls` routers alone are served, as their certificates say, and nobody
        where TLS was not built. A peer that does not begin to speak within `silent_seconds` is
        given up. Raises PortInUse, BadState when certificates cannot be used.
        """
        if not self.is_usable or (tls is not None and not tls_contexts.AVAILABLE):
            yield
            return
        if tls is not None:
            self._tls = ServerTls(tls, needs_certificate=True, look_seconds=LOOK_SECONDS)
        await self._begin(listen, port, silent_seconds)
        self._record_again(record_seconds)
        try:
            yield
        finally:
            await self._end()

    def drain(self, seconds: float) -> None:
        """Read no more frames, answer those that were read, and end the streams."""
        if self._native is not None and self.port:
            self.port = 0
            self._drain_by = time.monotonic() + seconds
            self._native.command(Command.DRAIN, 0)

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once every frame that is being served now, by whichever way, is done with."""
        if self._native is None:
            self._batcher.when_settled(callback)
            return
        # What the thread hands over in the meantime is with the batcher when it says so.
        number = next(self._numbers)
        self._settling[number] = callback
        self._native.command(Command.SETTLE, number)

    def counts(self) -> metrics.Counts:
        """What the native thread has computed since it began."""
        return metrics.Counts(*self._native.counts()) if self._native else metrics.NOTHING

    async def _begin(self, listen: str, port: int, silent_seconds: float) -> None:
        listener = await plane_listener.listen_beside(listen, port)
        self.port = listener.getsockname()[1]
        self._native = native = self._make(listener.detach(), silent_seconds)
        metrics.add_source(self.counts)
        # A process may end without having drained: the thread must not outlive what it works with.
        self._stop = weakref.finalize(self, native.stop)
        loop = asyncio.get_running_loop()
        loop.add_reader(native.fileno(), self._take_events)

    def _make(self, listener: int, silent_seconds: float) -> Any:
        self._context = None if self._tls is None else self._tls.context()
        contract, table, experts = self._contract, self._slots.table, self._experts
        assert experts is not None, "as `is_usable` says"
        base, expert, pair = self._held_nanos
        return _plane.Plane(
            kept=(experts, table),
            tls=self._context,
            listener=listener,
            slots=table.ctypes.data,
            num_layers=table.shape[0],
            num_experts=table.shape[1],
            experts=experts.described,
            base_nanos=base,
            expert_nanos=expert,
            pair_nanos=pair,
            element_type=ELEMENT_TYPES[experts.dtype],
            row_bytes=experts.hidden * experts.dtype.itemsize,
            most_pairs=self._most_compiled,
            max_frame_bytes=contract.max_frame_bytes,
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_silent_nanos=round(1e9 * silent_seconds),
            window_pairs=self._window_pairs,
            max_waiting_pairs=self._max_waiting_pairs,
        )

    async def _end(self) -> None:
        native = self._native
        try:
            async with asyncio.timeout(self._drain_by - time.monotonic()):
                await self._ended.wait()
        except TimeoutError:
            pass
        finally:
            # Quick, since the thread looks at it after each batch.
            await asyncio.to_thread(self._stop)
            self._take_events()
            self._recording.cancel()
            self._record()
            asyncio.get_running_loop().remove_reader(native.fileno())
            self._forget_all()

    def _forget_all(self) -> None:
        metrics.end_source(self.counts)
        self._native, self.port = None, 0
        for stream in self._streams.values():
            stream.close()
        for callback in self._settling.values():
            self._batcher.when_settled(callback)

    def _take_events(self) -> None:
        for kind, number, nanos, data in self._native.events():
            with aside("what the native plane told"):
                self._take_event(kind, number, nanos, data)

    def _take_event(self, kind: int, number: int, nanos: int, data: bytes) -> None:
        match kind:
            case Event.MESSAGE | Event.COUNTED_MESSAGE:
                if number in self._streams:
                    is_counted = kind == Event.COUNTED_MESSAGE
                    self._streams[number].receive(data, nanos, is_counted=is_counted)
            case Event.STREAM_OPENED:
                self._open(number, nanos, data)
            case Event.STREAM_GONE:
                if number in self._streams:
                    self._streams.pop(number).close()
            case Event.CONNECTION_GONE:
                self._decoders.pop(number, None)
                self._peers.pop(number, None)
            case Event.PEER_NAMED:
                self._peers[number] = verified(data.decode())
            case Event.BLOCK_PASSED_OVER:
                self._pass_over(number, data)
            case Event.SETTLED:
                self._batcher.when_settled(self._settling.pop(number))
            case Event.THREAD_ENDED:
                self._ended.set()

    def _open(self, number: int, connection: int, block: bytes) -> None:
        decoder = self._decoder_of(connection)
        native, batcher = self._native, self._batcher
        stream = PlaneStream(native, number, batcher, self._contract, self._slots)
        self._streams[number] = stream
        try:
            verified_peer = None if self._tls is None else self._peers.get(connection, {})
            stream.open(decoder.decode(block), verified_peer)
        except Exception as error:  # noqa: BLE001 -- the boundary of a connection: whose headers cannot be read any more
            failure_of(error, "reading headers")
            native.command(Command.CLOSE, number)

    def _pass_over(self, connection: int, block: bytes) -> None:
        """Later blocks may build on it; those of one that cannot be read will not be either."""
        with suppress(ServingError):
            self._decoder_of(connection).decode(block)

    def _decoder_of(self, connection: int) -> HeaderDecoder:
        return self._decoders.setdefault(connection, HeaderDecoder())

    def _record(self) -> None:
        with aside("recording what the native plane noted"):
            plane_records.record(*self._native.records())

    def _renew(self) -> None:
        if self._tls is not None and (context := self._tls.context()) is not self._context:
            self._context = context
            self._native.secure(context)

    def _record_again(self, seconds: float) -> None:
        self._record()
        with aside("looking at the certificate's files"):
            self._renew()
        loop = asyncio.get_running_loop()
        self._recording = loop.call_later(seconds, self._record_again, seconds)
