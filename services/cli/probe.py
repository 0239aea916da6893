"""`moesaic probe`: asks a service whether it is healthy, for orchestrators that run a command to
know.

It is run every second or so in every container. Importing gRPC would take most of its CPU time by
far, so it speaks the one call of the standard health service that it needs over a plain socket.
"""

import socket
import struct
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.cli.unreachable import why_unreachable
from services.runtime.flag_parser import FlagParser
from services.runtime.host_port import is_loopback, split_host_port, with_port

UNHEALTHY_EXIT = 1
GATEWAY_PORT = 50051
EXAMPLES = (
    "moesaic probe 127.0.0.1:50051",
    "moesaic probe --tls-certificate certificate.pem --tls-key key.pem --tls-authority "
    "authority.pem --server-name router.moesaic 127.0.0.1:50052",
)
MAX_SECONDS = 86_400.0
# HTTP/2 as in RFC 9113.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, GOODBYE = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
STREAM = 1
# Header fields as in RFC 7541, with the numbers of its static table.
METHOD_POST, SCHEME_HTTP = b"\x83", b"\x86"
AUTHORITY, PATH, CONTENT_TYPE, NEW_NAME = b"\x01", b"\x04", b"\x0f\x10", b"\x00"
# A message is led by a byte that says whether it is compressed and by its length. The request is
# empty.
MESSAGE_HEAD = struct.Struct(">BI")
SERVING = b"\x08\x01"  # HealthCheckResponse(status=SERVING)


def probe(arguments: Sequence[str]) -> int:
    """0 when the service says that it is serving, else 1 and a line on stderr that says why."""
    parser = FlagParser("moesaic probe", "Ask a service whether it is healthy.", EXAMPLES)
    parser.add_argument("address", help="host:port of a service; without a port that of a gateway")
    for what in ("certificate", "key", "authority"):
        parser.add_argument(f"--tls-{what}", metavar="PATH", help=f"file with the {what}, in PEM")
    parser.add_argument(
        "--server-name", metavar="NAME", help="name in its certificate, else the address's host"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="PATH", help="file with a token of a gateway's client"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=3.0, metavar="SECONDS", help="default: %(default)s"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="say what the system says of a failure"
    )
    options = parser.parse_args(list(arguments))
    options.address = with_port(options.address, GATEWAY_PORT)
    try:
        host, _ = split_host_port(options.address)
    except ValueError as error:
        parser.error(f"{options.address!r}: {error}")
    if (options.tls_certificate is None) != (options.tls_key is None) or (
        options.tls_certificate is not None and options.tls_authority is None
    ):
        parser.error("--tls-certificate and --tls-key go together, and with --tls-authority")
    if options.token_file and options.tls_authority is None and not is_loopback(host):
        parser.error(
            f"others could read the token on its way to {options.address}: give --tls-authority"
        )
    tls = Tls(options.tls_certificate, options.tls_key, options.tls_authority, options.server_name)
    try:
        token = options.token_file.read_text().strip() if options.token_file else None
        is_serving = ask(options.address, options.timeout, tls=tls, token=token)
    except (OSError, ValueError, EOFError) as error:
        words = f" ({error})" if options.verbose else ""
        why = why_unreachable(options.address, error)
        print(f"moesaic probe: {why}{words}", file=sys.stderr)
        return UNHEALTHY_EXIT
    if not is_serving:
        print(f"moesaic probe: {options.address}: not serving", file=sys.stderr)
    return 0 if is_serving else UNHEALTHY_EXIT


@dataclass(frozen=True)
class Tls:
    """Files in PEM: without an authority there is no TLS."""

    certificate: str | None = None
    key: str | None = None
    authority: str | None = None
    server_name: str | None = None

    def secured(self, connection: socket.socket, host: str) -> socket.socket:
        """The connection, behind TLS where there is to be any."""
        if self.authority is None:
            return connection
        import ssl  # most who probe need none, and it takes its time to import

        context = ssl.create_default_context(cafile=self.authority)
        context.set_alpn_protocols(["h2"])
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key, password="")
        return context.wrap_socket(connection, server_hostname=self.server_name or host)


WITHOUT_TLS = Tls()


def ask(
    address: str, timeout_seconds: float, *, tls: Tls = WITHOUT_TLS, token: str | None = None
) -> bool:
    """Whether the service at host:port says SERVING of itself.

    Raises OSError when it cannot be reached, says nothing for so long or refuses the call, EOFError
    when it hangs up, ValueError for what is no address.
    """
    host, port = split_host_port(address)
    with (
        socket.create_connection((host, port), timeout_seconds) as plain,
        tls.secured(plain, host) as connection,
    ):
        request = _request(address.encode(), token)
        connection.sendall(PREFACE + _frame(SETTINGS, 0, 0, b"") + request)
        with connection.makefile("rb") as received:
            return _answer(received) == SERVING


def _request(authority: bytes, token: str | None) -> bytes:
    fields = [
        METHOD_POST,
        SCHEME_HTTP,
        AUTHORITY + _text(authority),
        PATH + _text(b"/grpc.health.v1.Health/Check"),
        CONTENT_TYPE + _text(b"application/grpc"),
        NEW_NAME + _text(b"te") + _text(b"trailers"),
    ]
    if token is not None:
        fields.append(NEW_NAME + _text(b"authorization") + _text(f"Bearer {token}".encode()))
    message = MESSAGE_HEAD.pack(0, 0)
    return _frame(HEADERS, END_HEADERS, STREAM, b"".join(fields)) + _frame(
        DATA, END_STREAM, STREAM, message
    )


def _answer(received: BinaryIO) -> bytes:
    """The message of the reply. Raises ConnectionError where the call failed."""
    while True:
        kind, flags, payload = _read_frame(received)
        if kind == DATA:
            return payload[MESSAGE_HEAD.size :]
        if kind in (RESET, GOODBYE) or (kind == HEADERS and flags & END_STREAM):
            raise ConnectionError("it refused the call; it may want a certificate or a token")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _read_frame(received: BinaryIO) -> tuple[int, int, bytes]:
    head = _exactly(received, 9)
    return head[3], head[4], _exactly(received, int.from_bytes(head[:3]))


def _exactly(received: BinaryIO, count: int) -> bytes:
    taken = received.read(count)
    if len(taken) < count:
        raise EOFError("it hung up")
    return taken


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest = len(text) - 127  # of which seven bits go into each byte
    return bytes([127, rest % 128 | 128, rest // 128]) + text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_SECONDS:
        raise ArgumentTypeError(
            f"{text!r} should be a number of seconds above 0, up to {MAX_SECONDS:g}"
        )
    return seconds


if __name__ == "__main__":
    sys.exit(probe(sys.argv[1:]))
