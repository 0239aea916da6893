"""What the clients of this bench do, each of them called by its name with plain values."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any

from bench.crowd.bodies import sent
from bench.crowd.hostile import FLOODS, message_of
from bench.crowd.wire import GENERATE, WireCall, WireClient, work_until
from moesaic.v1 import generation_pb2 as pb
from services.runtime.call_blocks import request_block

EXHAUSTED = 8  # of gRPC's codes
# Until the server has said how many calls a connection may have.
GREETING_SECONDS = 0.05
# For answers that are on their way when a load is over.
REST_SECONDS = 30.0
# Of a burst, so that each is dated when it goes out.
CALLS_IN_A_WRITE = 50
# Without an answer in time.
UNANSWERED = -2

Result = Mapping[str, Any]


def _clients(address: str, hosts: Sequence[str]) -> list[WireClient]:
    clients = [WireClient(address, host) for host in hosts]
    work_until(clients, lambda: False, _after(GREETING_SECONDS))
    return clients


def flood(
    *, address: str, hosts: Sequence[str], kind: str, max_context: int, seconds: float
) -> Result:
    """A hostile crowd of one kind, which begins anew whatever ends."""
    chosen = next(each for each in FLOODS if each.name == kind)
    message = message_of(chosen, max_context)
    block = chosen.block
    clients = _clients(address, hosts)
    calls: list[WireCall] = []
    until = _after(seconds)
    share = max(1, chosen.num_at_once // len(clients))
    while time.monotonic_ns() < until:
        for number, client in enumerate(clients):
            if chosen.vanishes:
                client.close()
            if client.is_over:
                clients[number] = client = WireClient(address, hosts[number])
            if chosen.cancels:
                client.cancel_all()
            calls += _filled(client, share, block, message, is_finished=chosen.is_finished)
        work_until(clients, lambda: False, _after(chosen.pause_seconds))
    for client in clients:
        client.close()
    return {"statuses": _statuses(calls), "num_calls": len(calls)}


def burst(
    *, address: str, hosts: Sequence[str], count: int, prompt: Sequence[int], num_new_tokens: int
) -> Result:
    """So many requests at once, dealt out to a connection of each host."""
    block, message = request_block(GENERATE, address), request(prompt, num_new_tokens)
    clients = _clients(address, hosts)
    began = time.monotonic_ns()
    calls = []
    for number, client in zip(range(count), cycle(clients), strict=False):
        if (call := client.begin(block, message)) is not None:
            calls.append(call)
        if number % CALLS_IN_A_WRITE == 0:
            client.work()
    work_until(clients, lambda: not any(each.num_open for each in clients), _after(REST_SECONDS))
    return {
        "statuses": _statuses(calls),
        "refused_ms": _refused_ms(calls),
        "seconds": (time.monotonic_ns() - began) / 1e9,
    }


def closed(
    *,
    address: str,
    hosts: Sequence[str],
    num_at_once: int,
    seconds: float,
    prompt: Sequence[int],
    num_new_tokens: int,
) -> Result:
    """So many requests under way at all times."""
    block, message = request_block(GENERATE, address), request(prompt, num_new_tokens)
    clients = _clients(address, hosts)
    share = max(1, num_at_once // len(clients))
    calls: list[WireCall] = []

    def fill() -> None:
        for client in clients:
            calls.extend(_filled(client, share, block, message))

    return _kept_up(clients, fill, calls, seconds)


def series(**values: Any) -> Result:
    """One request after the other."""
    return closed(num_at_once=1, **values)


def offered(
    *,
    address: str,
    hosts: Sequence[str],
    requests_per_second: float,
    seconds: float,
    prompt: Sequence[int],
    num_new_tokens: int,
) -> Result:
    """So many requests in a second, however they are answered; what is under way in the end is
    given up.
    """
    block, message = request_block(GENERATE, address), request(prompt, num_new_tokens)
    clients = _clients(address, hosts)
    began = time.monotonic_ns()
    calls: list[WireCall] = []

    def send_due() -> None:
        due = (time.monotonic_ns() - began) / 1e9 * requests_per_second
        taking = deque(clients)
        while len(calls) < due and taking:
            if (call := taking[0].begin(block, message)) is None:
                taking.popleft()
            else:
                calls.append(call)
                taking.rotate(-1)

    return _kept_up(clients, send_due, calls, seconds)


def request(prompt: Sequence[int], num_new_tokens: int) -> bytes:
    """A request for so many tokens, drawn greedily and past the end of sequence."""
    made = pb.GenerateRequest(token_ids=pb.TokenIds(ids=prompt))
    made.sampling.temperature = 0.0
    made.stop.max_new_tokens = num_new_tokens
    made.stop.ignore_eos = True
    return made.SerializeToString()


def _filled(
    client: WireClient,
    num_at_once: int,
    block: bytes,
    message: bytes | None,
    *,
    is_finished: bool = True,
) -> Iterator[WireCall]:
    """Calls that are begun until so many are open, or no more are taken."""
    while client.num_open < num_at_once:
        call = client.begin(block, message, is_finished=is_finished)
        if call is None:
            return
        yield call


def _kept_up(
    clients: list[WireClient], begin_more: Callable[[], None], calls: list[WireCall], seconds: float
) -> Result:
    """What comes of the calls, of which more are begun all the time; those that are under way in
    the end are given up.
    """

    def keep_up() -> bool:
        begin_more()
        for client in clients:
            client.work()
        return False

    work_until(clients, keep_up, _after(seconds))
    for client in clients:
        client.close()
    return _result(calls, seconds)


def _result(calls: Sequence[WireCall], seconds: float) -> Result:
    first = [(call.token_nanos[0] - call.sent_nanos) / 1e6 for call in calls if call.token_nanos]
    return {
        "statuses": _statuses(calls),
        "refused_ms": _refused_ms(calls),
        "first_token_ms": first,
        "inter_token_ms": [
            (later - earlier) / 1e6
            for call in calls
            for earlier, later in pairwise(call.token_nanos)
        ],
        "completed_per_second": sum(call.status == 0 for call in calls) / seconds,
        "offered_per_second": len(calls) / seconds,
    }


def _refused_ms(calls: Sequence[WireCall]) -> list[float]:
    return [
        (call.ended_nanos - call.sent_nanos) / 1e6 for call in calls if call.status == EXHAUSTED
    ]


def _statuses(calls: Sequence[WireCall]) -> dict[str, int]:
    counts = Counter(UNANSWERED if call.status is None else call.status for call in calls)
    return {str(status): count for status, count in sorted(counts.items())}


def _after(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


LOADS: Mapping[str, Callable[..., Result]] = {
    load.__name__: load for load in (flood, burst, series, closed, offered, sent)
}
