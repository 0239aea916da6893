"""Each client's tokens in a second: what is used is counted, and who is in debt waits until it is
paid off.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.gateway.refusals import Bound, refuse

# Of its rate, what a client may use at once when it has used nothing for as long.
SAVED_SECONDS = 10.0


@dataclass
class _Account:
    tokens: float
    seconds: float  # when it was so much


class TokenQuotas:
    """Counts prompt tokens and generated ones, as they are used: no request is cut short, the next
    one is refused. The client seen longest ago is forgotten first, with its debt.
    """

    def __init__(
        self,
        *,
        tokens_per_second: float,
        max_clients: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = tokens_per_second
        self._max_clients = max_clients
        self._clock = clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def check(self, client: str) -> None:
        """Raises Overloaded when the client is in debt, and says when it will not be."""
        if self._rate and (tokens := self._account(client).tokens) < 0:
            raise refuse(
                Bound.CLIENT_TOKENS,
                f"this client has used {-tokens:.0f} tokens more than its rate of {self._rate:g} "
                "tokens per second allows",
                retry_after_seconds=-tokens / self._rate,
            )

    def charge(self, client: str, num_tokens: int) -> None:
        """The client has used so many."""
        if self._rate:
            self._account(client).tokens -= num_tokens

    def _account(self, client: str) -> _Account:
        now, most = self._clock(), self._rate * SAVED_SECONDS
        account = self._accounts.setdefault(client, _Account(most, now))
        self._accounts.move_to_end(client)
        earned = (now - account.seconds) * self._rate
        account.tokens, account.seconds = min(most, account.tokens + earned), now
        if len(self._accounts) > self._max_clients:
            self._accounts.popitem(last=False)
        return account
