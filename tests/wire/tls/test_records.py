"""What goes over a connection with TLS once hands are shaken."""

import random
import select
import shutil
import socket
import subprocess

import pytest

from services.wire.connections import AVAILABLE as HAS_CONNECTIONS
from services.wire.tls import AVAILABLE

if not (AVAILABLE and HAS_CONNECTIONS):
    pytest.skip("TLS of the native wire was not built", allow_module_level=True)

from bench.rig.certificates import Certificates
from services.runtime.roles import Role
from services.wire.connections import Connection, Kind
from services.wire.tls import Context
from tests.wire.tls.parties import LIMITS, Parties, client_context, parties, server_context

CLIENT, SERVER = client_context(), server_context()
# Around a record of 16 KiB, and more than is encrypted, read or handed to a socket at once.
SIZES = (0, 1, 16_370, 16_384, 16_385, 65_536, 300_000, 3 << 20)


def called(both: Parties) -> int:
    """A stream on which both sides may send."""
    stream = both.client.open(b"call")
    both.exchange()
    both.server.send_headers(stream, b"head", False)
    both.exchange()
    return stream


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_any_size_arrive_as_they_are(size: int) -> None:
    message = random.Random(size).randbytes(size)
    with parties(CLIENT, SERVER) as both:
        stream = called(both)
        assert both.client.send(stream, message)
        assert both.server.send(stream, message)
        answer, heard = both.exchange()
        assert heard == answer == [(stream, Kind.MESSAGE, message)]
        assert both.client.is_drained
        assert not both.client.wants_write


def test_many_small_messages_arrive_in_order() -> None:
    messages = [b"%d" % number * (number % 50) for number in range(3000)]
    with parties(CLIENT, SERVER) as both:
        stream = called(both)
        assert all(both.client.send(stream, message) for message in messages)
        _, heard = both.exchange()
        assert [data for _, _, data in heard] == messages


def test_nothing_can_be_read_on_the_way() -> None:
    seen: list[bytes] = []

    def seeing(data: bytes) -> bytes:
        seen.append(data)
        return data

    with parties(CLIENT, SERVER) as both:
        stream = called(both)
        both.client.send(stream, b"a secret" * 1000)
        _, heard = both.exchange(seeing)
        assert heard == [(stream, Kind.MESSAGE, b"a secret" * 1000)]
        assert b"a secret" not in b"".join(seen)


def test_any_changed_byte_ends_the_connection_and_nothing_of_it_is_heard() -> None:
    draw = random.Random(7)
    for _ in range(60):
        with parties(CLIENT, SERVER) as both:
            stream = called(both)
            both.client.send(stream, b"x" * draw.randrange(1, 40_000))

            def tampered(data: bytes) -> bytes:
                at = draw.randrange(min(len(data), 16_000))
                return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]

            both.client.flush()
            both.pass_on(tampered)
            events = both.server.receive()
            both.hang_up()
            events += both.server.receive()
            assert both.server.is_over
            assert Kind.MESSAGE not in [kind for _, kind, _, _ in events]


def test_a_peer_that_closes_is_told_from_nothing_else() -> None:
    with parties(CLIENT, SERVER) as both:
        stream = called(both)
        both.client.send(stream, b"last words")
        both.client.flush()
        both.client.close()
        _, heard = both.exchange()
        assert heard[0] == (stream, Kind.MESSAGE, b"last words")
        assert both.server.is_over
        assert both.server.why() == "the peer closed the connection"


def test_a_reader_that_is_slow_holds_the_writer_back() -> None:
    message = random.Random(1).randbytes(4 << 20)
    with parties(CLIENT, SERVER) as both:
        stream = called(both)
        assert both.client.send(stream, message)
        both.client.flush()
        assert both.client.wants_write
        assert both.client.unsent_bytes(stream) > 1 << 20
        _, heard = both.exchange()
        assert heard == [(stream, Kind.MESSAGE, message)]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl's command is not installed")
def test_a_peer_that_does_nothing_but_change_keys_is_given_up(certificates: Certificates) -> None:
    files = certificates.of(Role.ROUTER)
    material = certificates.of(Role.EXPERT).read()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = ["openssl", "s_client", "-alpn", "h2", "-connect"]
        command += [f"127.0.0.1:{listener.getsockname()[1]}", "-CAfile", str(files.authority)]
        command += ["-cert", str(files.certificate), "-key", str(files.key)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as peer:
            connected, _ = listener.accept()
            connected.setblocking(False)
            context = Context(True, material.certificate, material.key, material.authority)
            server = Connection(connected.detach(), True, *LIMITS, context)
            assert peer.stdin is not None
            num_changes = 0
            while not server.is_over:
                if server.is_secured:
                    peer.stdin.write(b"K\n")  # changes keys, and asks for the same
                    peer.stdin.flush()
                    num_changes += 1
                assert select.select([server.fileno()], [], [], 10)[0]
                server.receive()
                server.flush()
            peer.kill()
    assert 16 < num_changes < 64
    assert server.why() == "the peer sends nothing but TLS"
