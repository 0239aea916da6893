"""Which calls a native stream serves, and how it refuses and ends them."""

from collections.abc import Mapping

import grpc

from services.runtime import call_headers
from services.runtime.access import check_roles
from services.wire.errors import ServingError
from services.wire.tls import Verified

PATH = "/moesaic.v1.ExpertService/Dispatch"


def refusal(headers: Mapping[str, str], verified: Verified | None) -> bytes | None:
    """The headers that refuse a call, where it is not one that is served here; over TLS, to callers
    of whom that is `verified`.
    """
    if not call_headers.is_grpc(headers):
        return call_headers.NO_GRPC
    if headers.get(":path") != PATH:
        return call_headers.refuse(grpc.StatusCode.UNIMPLEMENTED, f"this port serves {PATH} alone")
    encoding = headers.get("grpc-encoding", "identity")
    if encoding != "identity":
        return call_headers.refuse(
            grpc.StatusCode.UNIMPLEMENTED,
            f"grpc-encoding is {encoding}; this port takes identity alone",
            [("grpc-accept-encoding", "identity")],
        )
    if verified is not None:
        try:
            check_roles(PATH, verified)
        except ServingError as error:
            return call_headers.refuse(error.status, str(error))
    return None


def trailers(error: ServingError) -> bytes:
    """Trailers that end a call with an error."""
    return call_headers.trailers(error.status, str(error))
