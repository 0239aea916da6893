"""TLS for the native wire, by the system's OpenSSL.

Without a compiler or OpenSSL's headers at install time, without its library at run time, and on
systems other than Linux, AVAILABLE is false.
"""

from collections.abc import Iterable, Mapping

from services.wire.native_streams import ENABLED

try:
    from services.wire.tls import _tls as _tls
except ImportError:  # it was not built, or the system has no such library
    _tls = None  # type: ignore[assignment]
else:
    from services.wire.tls._tls import Context as Context

AVAILABLE = ENABLED and _tls is not None


# Of a caller, in gRPC's words.
Verified = Mapping[str, Iterable[bytes]]


def verified(lines: str | None) -> Verified:
    """Whom the other side's certificate names, as the modules in C say it, in gRPC's words; nothing
    where it has shown none. Names that are not printable ASCII are left out.
    """
    if lines is None:
        return {}
    common_name, *uris = lines.encode().split(b"\n")
    return {
        "x509_common_name": [common_name] if common_name else [],
        "x509_subject_alternative_name": uris,
    }
