"""What the clients of this bench do, each of them called by its name with plain values."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

from bench.crowd.hostile import FLOODS, message_of
from bench.crowd.wire import GENERATE, WireCall, WireClient, work_until
from moesaic.v1 import generation_pb2 as pb

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
    clients = _clients(address, hosts)
    calls: list[WireCall] = []
    until = _after(seconds)
    share = max(1, chosen.num_at_once // len(clients))

    def fill() -> None:
        for number, client in enumerate(clients):
            if chosen.vanishes:
                client.close()
            if client.is_over:
                clients[number] = client = WireClient(address, hosts[number])
            if chosen.cancels:
                client.cancel_all()
            while client.num_open < share:
                call = client.begin_with(chosen.block, message, is_finished=chosen.is_finished)
                if call is None:
                    break
                calls.append(call)

    while time.monotonic_ns() < until:
        fill()
        work_until(clients, lambda: False, _after(chosen.pause_seconds))
    for client in clients:
        client.close()
    return {"statuses": _statuses(calls), "num_calls": len(calls)}


def burst(
    *, address: str, hosts: Sequence[str], count: int, prompt: Sequence[int], num_new_tokens: int
) -> Result:
    """So many requests at once, dealt out to a connection of each host."""
    message = request(prompt, num_new_tokens)
    clients = _clients(address, hosts)
    began = time.monotonic_ns()
    calls = []
    for number, client in zip(range(count), cycle(clients), strict=False):
        if (call := client.begin(GENERATE, message)) is not None:
            calls.append(call)
        if number % CALLS_IN_A_WRITE == 0:
            client.work()
    work_until(clients, lambda: not any(each.num_open for each in clients), _after(REST_SECONDS))
    return {
        "statuses": _statuses(calls),
        "refused_ms": _refused_ms(calls),
        "seconds": (time.monotonic_ns() - began) / 1e9,
    }


def series(
    *,
    address: str,
    hosts: Sequence[str],
    seconds: float,
    prompt: Sequence[int],
    num_new_tokens: int,
) -> Result:
    """One request after the other."""
    return _closed(address, hosts, 1, seconds, request(prompt, num_new_tokens))


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
    return _closed(address, hosts, num_at_once, seconds, request(prompt, num_new_tokens))


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
    message, clients = request(prompt, num_new_tokens), _clients(address, hosts)
    began = time.monotonic_ns()
    calls: list[WireCall] = []

    def send_due() -> bool:
        due = (time.monotonic_ns() - began) / 1e9 * requests_per_second
        for client in cycle(clients):
            if len(calls) >= due:
                break
            call = client.begin(GENERATE, message)
            if call is not None:
                calls.append(call)
        for client in clients:
            client.work()
        return False

    work_until(clients, send_due, _after(seconds))
    for client in clients:
        client.cancel_all()
        client.close()
    return _result(calls, seconds)


def request(prompt: Sequence[int], num_new_tokens: int) -> bytes:
    """A request for so many tokens, drawn greedily and past the end of sequence."""
    made = pb.GenerateRequest(token_ids=pb.TokenIds(ids=prompt))
    made.sampling.temperature = 0.0
    made.stop.max_new_tokens = num_new_tokens
    made.stop.ignore_eos = True
    return made.SerializeToString()


def _closed(
    address: str, hosts: Sequence[str], num_at_once: int, seconds: float, message: bytes
) -> Result:
    clients = _clients(address, hosts)
    share = max(1, num_at_once // len(clients))
    calls: list[WireCall] = []

    def fill() -> bool:
        for client in clients:
            while client.num_open < share:
                call = client.begin(GENERATE, message)
                if call is None:
                    break
                calls.append(call)
            client.work()
        return False

    work_until(clients, fill, _after(seconds))
    for client in clients:
        client.cancel_all()
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
            for earlier, later in zip(call.token_nanos, call.token_nanos[1:], strict=False)
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
    load.__name__: load for load in (flood, burst, series, closed, offered)
}
