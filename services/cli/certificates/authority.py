"""An authority and the certificates that it signs, on the curve P-256."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.runtime.roles import Role

AUTHORITY_DAYS = 3650
# Clocks of other machines may be behind.
EARLIER = timedelta(minutes=5)
SERVING = (Role.GATEWAY, Role.ROUTER, Role.EXPERT, Role.TRACING)
# By others than the services of the cluster, who go by names of roles.
REACHED_BY_HOST = (Role.GATEWAY, Role.TRACING)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates of roles."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def new(cls) -> "Authority":
        """Another one, whom nobody trusts yet."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _named("moesaic development authority")
        builder = _begun(name, name, key.public_key(), AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, issued: Issued) -> "Authority":
        """One that `issued` wrote. Raises ValueError for anything else."""
        key = load_pem_private_key(issued.key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is none of an elliptic curve")
        return cls(x509.load_pem_x509_certificate(issued.certificate), key)

    @property
    def issued(self) -> Issued:
        """Its own certificate, which others trust, and its key, which nobody else has."""
        return Issued(self._certificate.public_bytes(Encoding.PEM), _written(self._key))

    def issue(self, role: Role, name: str, hosts: Sequence[str], days: int) -> Issued:
        """A certificate for a process of the role, reached at these hosts and the loopback too,
        where such a process is reached by its host.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begun(_named(name), self._certificate.subject, key.public_key(), days)
        for extension, critical in (
            (x509.SubjectAlternativeName(_names(role, hosts)), False),
            (x509.BasicConstraints(False, None), True),
            (_usage(signs=False), True),
            (x509.ExtendedKeyUsage(_usages(role)), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(certificate.public_bytes(Encoding.PEM), _written(key))


def _names(role: Role, hosts: Sequence[str]) -> list[x509.GeneralName]:
    """A client could pass for a service by a name that it has no need of."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(role.uri)]
    if role in SERVING:
        names.append(x509.DNSName(role.server_name))
    if role in REACHED_BY_HOST:
        names += map(_host, dict.fromkeys((role, *LOOPBACK, *hosts)))
    return names


def _usages(role: Role) -> list[x509.ObjectIdentifier]:
    serving = [ExtendedKeyUsageOID.SERVER_AUTH] if role in SERVING else []
    return [*serving, ExtendedKeyUsageOID.CLIENT_AUTH]


def _begun(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _written(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
