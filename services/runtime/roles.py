"""What a process is to the others of its cluster, as its certificate says."""

from enum import StrEnum

DOMAIN = "moesaic"
# What a client may be called, in its certificate and beside its token.
CLIENT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"


class Role(StrEnum):
    """The certificate of a process has its role's `uri` and its `server_name` among its subject's
    alternative names.
    """

    GATEWAY = "gateway"
    ROUTER = "router"
    EXPERT = "expert"
    TRACING = "tracing"
    OPERATOR = "operator"
    CLIENT = "client"

    @property
    def uri(self) -> str:
        """By which a server knows who calls."""
        return f"spiffe://{DOMAIN}/{self}"

    @property
    def server_name(self) -> str:
        """By which a caller knows that it reached a server of this role, whatever its address."""
        return f"{self}.{DOMAIN}"
