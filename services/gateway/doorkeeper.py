"""The gateway's doorkeeper: refuses a call before its request is read, where there is no room for
it.
"""

from collections import Counter
from collections.abc import Callable, Collection

from services.gateway.admission import Admission
from services.gateway.clients import Clients
from services.gateway.quotas import TokenQuotas
from services.gateway.refusals import Bound, refuse
from services.gateway.shares import share_of
from services.runtime.access import Shown

# Answered however many calls there are: who asks may end the process for want of an answer. So a
# connection has a few of its own, and takes none from others.
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
MAX_HEALTH_CHECKS = 16
# Calls end at all times; how soon one does is not known.
RETRY_SECONDS = 1.0


class GatewayDoorkeeper:
    """Counts the calls that are under way, whatever they wait for. One client has at most
    `client_share` of them.

    Calls of `queued` methods are refused here too where what waits is full already; they take their
    place when their request is there.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        max_calls: int,
        client_share: float,
        queued: Collection[str],
        admission: Admission,
        quotas: TokenQuotas,
    ) -> None:
        self._clients = clients
        self._max_calls = max_calls
        self._max_client_calls = share_of(max_calls, client_share)
        self._queued = frozenset(queued)
        self._admission = admission
        self._quotas = quotas
        self._by_client: Counter[str] = Counter()
        self._checks_by_peer: Counter[str] = Counter()
        self._num_calls = 0
        # Calls of queued methods under way.
        self.num_requests = 0

    def admit(self, method: str, shown: Shown) -> Callable[[], None]:
        """As `Doorkeeper` has it; raises Overloaded, and Unauthenticated as `Clients` do."""
        if method == HEALTH_CHECK:
            return self._admit_check(shown.peer())
        client = self._clients.client_of(shown).name
        self._check(client)
        is_request = method in self._queued
        if is_request:
            self._admission.check(client)
            self._quotas.check(client)
        self._count(client, is_request, 1)
        return lambda: self._count(client, is_request, -1)

    def _check(self, client: str) -> None:
        for calls, limit, whose in (
            (self._num_calls, self._max_calls, ""),
            (self._by_client[client], self._max_client_calls, " of this client"),
        ):
            if calls >= limit:
                raise refuse(
                    Bound.CALLS,
                    f"{calls} calls{whose} are under way already; the limit is {limit}",
                    retry_after_seconds=RETRY_SECONDS,
                )

    def _admit_check(self, peer: str) -> Callable[[], None]:
        if self._checks_by_peer[peer] >= MAX_HEALTH_CHECKS:
            raise refuse(
                Bound.CALLS,
                f"{MAX_HEALTH_CHECKS} health checks of this connection are under way already",
                retry_after_seconds=RETRY_SECONDS,
            )
        self._checks_by_peer[peer] += 1
        return lambda: _take_one(self._checks_by_peer, peer)

    def _count(self, client: str, is_request: bool, change: int) -> None:
        self._num_calls += change
        self.num_requests += change * is_request
        self._by_client[client] += change
        if not self._by_client[client]:
            del self._by_client[client]


def _take_one(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
