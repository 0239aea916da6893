"""Who may call what: the one table of it, and the check that each call of a server goes through."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from services.runtime.roles import Role
from services.wire.errors import PermissionDenied, Unauthenticated

ALL = frozenset(Role)
OPERATOR = frozenset({Role.OPERATOR})
# By a method's path, or else its service's; what is in neither is for nobody.
MAY_CALL: Mapping[str, frozenset[Role]] = {
    "/moesaic.v1.GenerationService": frozenset({Role.CLIENT}),
    "/moesaic.v1.RouterService": OPERATOR,  # the calls that PlacementService has now
    "/moesaic.v1.RouterService/Describe": frozenset({Role.GATEWAY, Role.OPERATOR}),
    "/moesaic.v1.RouterService/Run": frozenset({Role.GATEWAY}),
    "/moesaic.v1.PlacementService": OPERATOR,
    "/moesaic.v1.ExpertService": frozenset({Role.ROUTER}),
    "/opentelemetry.proto.collector.trace.v1.TraceService": ALL,
    "/opentelemetry.proto.collector.metrics.v1.MetricsService": ALL,
    "/grpc.health.v1.Health": ALL,
    "/grpc.reflection.v1alpha.ServerReflection": ALL,
}


class Shown(Protocol):
    """What a call shows of its caller, as grpc.aio.ServicerContext has it."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...
    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...
    def peer(self) -> str: ...


Admit = Callable[[Shown], None]


class Access(Protocol):
    """Says whether a call is let in, before anything of its request is looked at."""

    # Whether TLS is to refuse callers without a certificate.
    needs_certificate: bool

    def check(self, method: str, context: Shown) -> None:
        """Raises Unauthenticated where nobody knows whose the call is, PermissionDenied where the
        caller may not.
        """


class RolesAccess:
    """By the roles in the caller's certificate, which TLS has verified."""

    needs_certificate = True

    def check(self, method: str, context: Shown) -> None:
        check_roles(method, context.auth_context())


def admission(access: Access | None, method: str) -> Admit:
    """The check of a method's calls; without `access` everybody is let in."""
    if access is None:
        return _let_in
    return partial(access.check, method)


def check_roles(method: str, verified: Mapping[str, Iterable[bytes]]) -> None:
    """Of a call, of whose caller TLS says this. Raises as `Access.check` does."""
    roles = roles_of(verified)
    if not roles:
        raise Unauthenticated("the certificate names no role of this cluster")
    if not roles & may_call(method):
        raise PermissionDenied(f"{method} is not for {' or '.join(sorted(roles))}")


def may_call(method: str) -> frozenset[Role]:
    """The roles that a method, written `/package.Service/Name`, is for."""
    service = method.rpartition("/")[0]
    return MAY_CALL.get(method, MAY_CALL.get(service, frozenset()))


def roles_of(verified: Mapping[str, Iterable[bytes]]) -> frozenset[Role]:
    """The roles in what TLS says of a caller; none where there is no certificate."""
    names = set(verified.get("x509_subject_alternative_name", ()))
    return frozenset(role for role in Role if role.uri.encode() in names)


def common_name(verified: Mapping[str, Iterable[bytes]]) -> str | None:
    """What the caller is called in its certificate; None where there is none."""
    for name in verified.get("x509_common_name", ()):
        return name.decode(errors="replace")
    return None


def _let_in(_: Shown) -> None:
    pass
