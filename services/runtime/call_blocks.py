"""The header blocks of a gRPC call: what begins it, and what the answer says of its beginning and
its end.
"""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import unquote

from services.runtime.call_headers import CONTENT_TYPE
from services.wire.errors import Overloaded, ServingError, Unavailable, from_code
from services.wire.header_blocks import HeaderDecoder, encode_headers

OK, CANCELLED = 0, 1  # of gRPC's status codes
# HTTP's words for what passes, where something on the way answers instead of the service.
PASSING = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# A beginning, an end, and what may be said before.
MAX_BLOCKS = 8
# Of HTTP/2's codes with which a stream is reset.
NO_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0, 7, 8, 11
RESET_ERRORS: Mapping[int, type[ServingError]] = {
    NO_ERROR: Unavailable,
    REFUSED_STREAM: Unavailable,
    ENHANCE_YOUR_CALM: Overloaded,
}


def request_block(path: str, authority: str, *, is_secured: bool = False) -> bytes:
    """What begins the call of this method at the service at `authority`, over TLS where that is
    secured.
    """
    return encode_headers(
        [
            (":method", "POST"),
            (":scheme", "https" if is_secured else "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            ("user-agent", "moesaic"),
        ]
    )


class CallAnswer:
    """Takes the blocks of one call as they come. `name` names the service in errors."""

    def __init__(self, name: str) -> None:
        self.has_begun = False
        self.has_ended_well = False
        self.end: ServingError | None = None  # how it ended, once that was said
        self._name = name
        self._decoder = HeaderDecoder()
        self._num_blocks = 0

    def take(self, block: bytes) -> None:
        """Read the next block, on a connection of the call's own. Raises ServingError when it can
        be none of a call's, or begins what is no gRPC.
        """
        self.note(self._decoder.decode(block))

    def note(self, headers: dict[str, str]) -> None:
        """Take the next block, which the connection of several calls has read. Raises as `take`
        does.
        """
        self._num_blocks += 1
        if self._num_blocks > MAX_BLOCKS:
            raise ServingError(f"{self._name} sent more than {MAX_BLOCKS} header blocks in a call")
        if "grpc-status" in headers:
            self.end = self._ended(headers["grpc-status"], headers.get("grpc-message", ""))
        elif ":status" in headers:
            self._check(headers)

    def broken(self, reset_code: int | None, why: str) -> ServingError:
        """What ended a call that ended without a word: the code that it was reset with, or why its
        connection is gone.
        """
        if reset_code is None:
            return Unavailable(f"the stream to {self._name} broke: {why}")
        if reset_code == CANCEL:
            return Unavailable(f"{self._name} cancelled the call")
        error = RESET_ERRORS.get(reset_code, ServingError)
        return error(f"{self._name} reset the stream with code {reset_code}")

    def _check(self, headers: dict[str, str]) -> None:
        status, content = headers[":status"], headers.get("content-type", "")
        if status.startswith("1"):
            return  # more will come
        if status != "200":
            kind = Unavailable if status in map(str, map(int, PASSING)) else ServingError
            raise kind(f"{self._name} answered a call with HTTP status {status}")
        if not content.startswith(CONTENT_TYPE):
            raise ServingError(f"{self._name} answered a call with {content or 'nothing'}, no gRPC")
        self.has_begun = True

    def _ended(self, status: str, message: str) -> ServingError:
        code = int(status[:4]) if status.isascii() and status.isdecimal() else -1
        if code == OK:
            self.has_ended_well = True
            return Unavailable(f"{self._name} ended the stream")
        if code == CANCELLED:
            return Unavailable(f"{self._name} cancelled the call")
        return from_code(code, unquote(message) or "the call failed without a message")
