"""Paces each client's requests, so that one of them does not take the place of all."""

import asyncio
from collections import OrderedDict

from asyncio_throttle.throttler import Throttler

from services.gateway.refusals import Bound, refuse


class ClientPacing:
    """One throttler for each client, the least recently seen forgotten first.

    asyncio-throttle polls, is not fair and never refuses. So only one request of a client polls at
    a time, the others stand behind it in order, and beyond `max_waiting` of one client they are
    refused.
    """

    def __init__(self, *, requests_per_second: float, max_waiting: int, max_clients: int) -> None:
        self._requests_per_second = requests_per_second
        self._max_waiting = max_waiting
        self._max_clients = max_clients
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    async def wait(self, client: str, own_rate: float | None = None) -> None:
        """Return when the client's rate, which may be its own, lets one more request through.

        Raises Overloaded at once when too many of its requests wait for that already.
        """
        rate = self._rate(own_rate)
        if not rate:
            return
        paced = self._client(client, rate)
        if paced.num_waiting >= self._max_waiting:
            raise refuse(
                Bound.CLIENT_RATE,
                f"{paced.num_waiting} requests of this client wait for its rate of "
                f"{rate:g} requests per second; the limit is "
                f"{self._max_waiting}",
                retry_after_seconds=paced.num_waiting / rate,
            )
        await paced.wait()

    def max_waiting(self, own_rate: float | None = None) -> int | None:
        """Of one client's requests; None where nothing waits."""
        return self._max_waiting if self._rate(own_rate) else None

    def _rate(self, own_rate: float | None) -> float:
        return self._requests_per_second if own_rate is None else own_rate

    def _client(self, name: str, rate: float) -> "_Client":
        client = self._clients.pop(name, None) or _Client()
        client.set_rate(rate)
        self._clients[name] = client
        if len(self._clients) > self._max_clients:
            self._forget_one()
        return client

    def _forget_one(self) -> None:
        # One with waiting requests stays: how many there are of those is bounded by admission.
        idle = next(
            (name for name, client in self._clients.items() if not client.num_waiting), None
        )
        if idle is not None:
            del self._clients[idle]


class _Client:
    def __init__(self) -> None:
        self._throttler = Throttler(rate_limit=1)
        self._turn = asyncio.Lock()  # asyncio's locks are fair
        self.num_waiting = 0

    def set_rate(self, requests_per_second: float) -> None:
        """From now on; what was let through before counts, or who has two tokens with two rates
        would have none.
        """
        # Whole requests in a period: 2.5 a second are 2 in 0.8 s, 0.1 a second is 1 in 10 s.
        burst = max(1, int(requests_per_second))
        self._throttler.rate_limit, self._throttler.period = burst, burst / requests_per_second

    async def wait(self) -> None:
        self.num_waiting += 1
        try:
            async with self._turn:
                await self._throttler.acquire()  # type: ignore[no-untyped-call]
        finally:
            self.num_waiting -= 1
