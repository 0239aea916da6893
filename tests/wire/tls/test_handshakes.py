"""Handshakes of the native wire: with whom they succeed, and what becomes of all others."""

import pytest

from services.wire.connections import AVAILABLE as HAS_CONNECTIONS
from services.wire.tls import AVAILABLE, verified

if not (AVAILABLE and HAS_CONNECTIONS):
    pytest.skip("TLS of the native wire was not built", allow_module_level=True)

from services.cli.certificates.authority import Authority, Issued
from services.runtime.roles import Role
from services.wire.connections import Kind
from services.wire.tls import Context
from tests.wire.tls.parties import (
    AUTHORITY,
    EXPERT,
    GATEWAY,
    HOST,
    ROUTER,
    TRUSTED,
    client_context,
    parties,
    server_context,
)

STRANGER = Authority.new()
STRANGE_ROUTER = STRANGER.issue(Role.ROUTER, "router-7", [], 1)
EXPIRED = AUTHORITY.issue(Role.ROUTER, "router-7", [], 0)
EXPIRED_EXPERT = AUTHORITY.issue(Role.EXPERT, "expert-3", [], 0)


def test_both_sides_learn_whom_the_others_certificate_names() -> None:
    with parties(client_context(), server_context()) as both:
        both.client.open(b"call")
        assert both.server.peer is None
        _, heard = both.exchange()
        assert heard == [(1, Kind.HEADERS, b"call")]
        assert both.client.is_secured
        assert both.server.is_secured
        assert verified(both.server.peer) == {
            "x509_common_name": [b"router-7"],
            "x509_subject_alternative_name": [b"spiffe://moesaic/router"],
        }
        assert verified(both.client.peer)["x509_common_name"] == [b"expert-3"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "gateway", "gateway.moesaic"])
def test_a_server_may_be_known_by_a_name_or_an_address(host: str) -> None:
    with parties(client_context(), server_context(GATEWAY), host) as both:
        both.exchange()
        assert both.client.is_secured
        assert not both.client.is_over


def test_a_server_that_asks_for_none_takes_clients_without_certificate() -> None:
    with parties(client_context(None), server_context(authority=None)) as both:
        both.exchange()
        assert both.server.is_secured
        assert verified(both.server.peer) == {}


@pytest.mark.parametrize(
    ("issued", "host", "why"),
    [
        (EXPERT, "router.moesaic", "hostname mismatch"),
        (EXPERT, "127.0.0.1", "IP address mismatch"),
        (STRANGER.issue(Role.EXPERT, "expert-3", [], 1), HOST, "unable to get local issuer"),
        (EXPIRED_EXPERT, HOST, "certificate has expired"),
        (AUTHORITY.issue(Role.CLIENT, "client", [], 1), HOST, "purpose"),
    ],
    ids=["name", "address", "authority", "expired", "purpose"],
)
def test_a_client_refuses_a_server_by(issued: Issued, host: str, why: str) -> None:
    with parties(client_context(), server_context(issued), host) as both:
        both.client.open(b"call")
        _, heard = both.exchange()
        assert heard == []
        assert "certificate is refused" in both.client.why()
        assert why in both.client.why()
        assert both.server.is_over
        assert "the peer gave TLS up" in both.server.why()


@pytest.mark.parametrize(
    ("issued", "why"),
    [
        (None, "peer did not return a certificate"),
        (STRANGE_ROUTER, "unable to get local issuer"),
        (EXPIRED, "certificate has expired"),
    ],
    ids=["none", "authority", "expired"],
)
def test_a_server_refuses_a_client_by(issued: Issued | None, why: str) -> None:
    with parties(client_context(issued), server_context()) as both:
        both.client.open(b"call")
        _, heard = both.exchange()
        assert heard == []
        assert why in both.server.why()
        assert both.client.is_over
        assert "the peer gave TLS up" in both.client.why()


def test_who_speaks_no_tls_is_told_apart() -> None:
    with parties(None, server_context()) as both:
        both.exchange()
        assert both.server.why() == "the peer does not speak TLS"
    with parties(client_context(), None) as both:
        both.exchange()
        assert both.server.why() == "the peer does not speak HTTP/2"
        assert both.client.why() == "the peer does not speak TLS"


def test_a_handshake_may_come_byte_by_byte() -> None:
    with parties(client_context(), server_context()) as both:
        both.client.flush()
        flight = both.said_by_client()
        for at in range(len(flight)):
            assert not both.server.is_over
            both.tell_server(flight[at : at + 1])
            both.server.receive()
        both.exchange()
        assert both.server.is_secured


def test_what_is_cut_off_or_broken_ends_its_own_connection_alone() -> None:
    server = server_context()
    first = _first_flight(server)
    for at in range(0, len(first), 7):
        broken = first[:at] + bytes([first[at] ^ 0x55]) + first[at + 1 :]
        for flight in (first[:at], broken):
            with parties(client_context(), server) as both:
                both.tell_server(flight)
                both.server.receive()
                both.hang_up()
                both.server.receive()
                assert both.server.is_over
                assert not both.server.is_secured
    with parties(client_context(), server) as both:
        both.exchange()
        assert both.server.is_secured


def _first_flight(server: Context) -> bytes:
    with parties(client_context(), server) as both:
        both.client.flush()
        return both.said_by_client()


def test_during_the_handshake_writing_waits_for_reading() -> None:
    with parties(client_context(), server_context()) as both:
        both.client.open(b"call")
        both.client.flush()
        both.server.flush()
        assert not both.client.wants_write
        assert not both.server.wants_write
        both.exchange()
        assert both.client.is_drained


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        ((b"none", EXPERT.key, TRUSTED), "the certificate cannot be read"),
        ((EXPERT.certificate + b"-----BEGIN CERTIFICATE-----", EXPERT.key, TRUSTED), "certificate"),
        ((EXPERT.certificate, b"none", TRUSTED), "the key cannot be read"),
        ((EXPERT.certificate, ROUTER.key, TRUSTED), "not the certificate's"),
        ((EXPERT.certificate, EXPERT.key, b"none"), "the authority's certificates cannot be read"),
        ((None, None, TRUSTED), "the key is not the certificate's"),
    ],
)
def test_files_that_cannot_be_used_are_told_apart(
    pem: tuple[bytes | None, bytes | None, bytes | None], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Context(True, *pem)


def test_a_chain_may_have_what_stands_between() -> None:
    both_authorities = STRANGER.issued.certificate + TRUSTED
    chain = Issued(EXPERT.certificate + TRUSTED, EXPERT.key)
    with parties(client_context(authority=both_authorities), server_context(chain)) as both:
        both.exchange()
        assert both.client.is_secured
