"""What the headers of a new stream ask for: a call of a method, or something that is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from services.runtime import call_headers
from services.runtime.boundary import retry_after
from services.runtime.doorkeeping import Doorkeeper
from services.runtime.native_server.compression import ACCEPTED
from services.runtime.native_server.metadata import Metadata, metadata_of
from services.runtime.native_server.methods import Method, Methods
from services.wire.errors import ServingError
from services.wire.header_blocks import HeaderDecoder, UnreadableBlock
from services.wire.tls import Verified


@dataclass(frozen=True)
class ShownCall:
    """What is known of a call before it begins. Who has found something out by it may note that
    for whoever would look again.
    """

    metadata: Metadata
    address: str
    verified: Verified
    notes: dict[str, Any] = field(default_factory=dict)

    def invocation_metadata(self) -> Metadata:
        return self.metadata

    def auth_context(self) -> Verified:
        return self.verified

    def peer(self) -> str:
        return self.address


class Asked(NamedTuple):
    """A call: `encoding` is of its requests, `seconds` how long its client waits, None for ever,
    and `leave` is to be called once it is over.
    """

    method: Method
    shown: ShownCall
    encoding: str
    seconds: float | None
    leave: Callable[[], None]


class Entrance:
    """Reads the header blocks of one connection, each exactly once and in their order."""

    def __init__(self, methods: Methods, peer: str, doorkeeper: Doorkeeper | None) -> None:
        self._methods = methods
        self._peer = peer
        self._doorkeeper = doorkeeper
        self._decoder = HeaderDecoder()

    def ask(self, block: bytes, verified: Verified) -> Asked | bytes:
        """The call, or the header block that refuses it. Raises UnreadableBlock."""
        try:
            fields = self._decoder.decode_fields(block)
            return self._asked_by(fields, verified)
        except UnreadableBlock:
            raise
        except ServingError as error:
            return call_headers.refuse(error.status, str(error), retry_after(error))

    def skip(self, block: bytes) -> None:
        """Read a block that nobody asks for, since later ones build on it. Raises
        UnreadableBlock.
        """
        try:
            self._decoder.decode_fields(block)
        except UnreadableBlock:
            raise
        except ServingError:
            return

    def _asked_by(self, fields: Sequence[tuple[str, str]], verified: Verified) -> Asked | bytes:
        headers = dict(fields)
        if not call_headers.is_grpc(headers):
            return call_headers.NO_GRPC
        path = headers.get(":path", "")
        if (method := self._methods.find(path)) is None:
            return call_headers.refuse(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        encoding = headers.get("grpc-encoding", "identity")
        if encoding not in ACCEPTED:
            details = f"grpc-encoding is {encoding}, which is not known here"
            accepted = [("grpc-accept-encoding", ",".join(ACCEPTED))]
            return call_headers.refuse(grpc.StatusCode.UNIMPLEMENTED, details, accepted)
        shown = ShownCall(metadata_of(fields), self._peer, verified)
        leave = self._admit(path, shown)
        return Asked(method, shown, encoding, call_headers.timeout_seconds(headers), leave)

    def _admit(self, path: str, shown: ShownCall) -> Callable[[], None]:
        return _uncounted if self._doorkeeper is None else self._doorkeeper.admit(path, shown)


def _uncounted() -> None:
    """Nobody counts the calls."""
