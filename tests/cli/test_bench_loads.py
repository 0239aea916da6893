"""When the requests of a load are due and sent."""

import asyncio
import time
from itertools import islice, pairwise

import pytest

from moesaic.v1 import generation_pb2
from services.cli.bench.loads import ArrivalProcess, Bounds, ClosedLoop, OpenLoop, due_seconds
from services.cli.bench.run import LoadRun
from services.cli.bench.sample import RequestFailure, Sample


def open_loop(
    rate: float, *, arrivals: ArrivalProcess = "constant", seed: int = 0, max_in_flight: int = 100
) -> OpenLoop:
    return OpenLoop(rate, arrivals, seed, max_in_flight)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert list(due_seconds(open_loop(4), Bounds(5, None))) == [0, 0.25, 0.5, 0.75, 1.0]


def test_no_request_is_due_when_the_time_is_up() -> None:
    assert list(due_seconds(open_loop(4), Bounds(None, 1.0))) == [0, 0.25, 0.5, 0.75]


def test_whichever_bound_comes_first_ends_a_load() -> None:
    assert len(list(due_seconds(open_loop(4), Bounds(3, 1.0)))) == 3
    assert len(list(due_seconds(open_loop(4), Bounds(30, 1.0)))) == 4


def test_poisson_arrivals_are_the_same_for_the_same_seed() -> None:
    first, again, other = (
        list(due_seconds(open_loop(2, arrivals="poisson", seed=seed), Bounds(50, None)))
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_poisson_arrivals_have_the_rate_and_the_spread_of_exponential_gaps() -> None:
    due = list(islice(due_seconds(open_loop(4, arrivals="poisson"), Bounds(20_001, None)), 20_001))
    gaps = [after - before for before, after in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 4, rel=0.03)
    assert variance == pytest.approx(1 / 16, rel=0.06)


class Server:
    """Answers when it is told to; remembers how many requests it had at a time."""

    def __init__(self) -> None:
        self.num_waiting = 0
        self.most_waiting = 0
        self.arrived: asyncio.Queue[asyncio.Future[RequestFailure | None]] = asyncio.Queue()

    async def send(self, sample: Sample) -> None:
        self.num_waiting += 1
        self.most_waiting = max(self.most_waiting, self.num_waiting)
        answer: asyncio.Future[RequestFailure | None] = asyncio.get_running_loop().create_future()
        self.arrived.put_nowait(answer)
        sample.failure = await answer
        if sample.failure is None:
            sample.completion = generation_pb2.Completion()
        sample.ended_nanos = int(asyncio.get_running_loop().time() * 1e9)
        self.num_waiting -= 1


async def test_a_closed_loop_sends_the_next_request_when_one_has_ended() -> None:
    server, run = Server(), LoadRun(ClosedLoop(2), Bounds(5, None))
    running = asyncio.create_task(run.run(server.send))
    for _ in range(5):
        answer = await server.arrived.get()
        answer.set_result(None)
    await running
    assert server.most_waiting == 2
    assert [sample.number for sample in run.samples] == [0, 1, 2, 3, 4]
    assert run.num_ended == 5


async def test_a_closed_loop_has_no_more_users_than_requests() -> None:
    server, run = Server(), LoadRun(ClosedLoop(100), Bounds(2, None))
    running = asyncio.create_task(run.run(server.send))
    for answer in [await server.arrived.get(), await server.arrived.get()]:
        answer.set_result(None)
    await running
    assert server.most_waiting == 2


async def test_an_open_loop_sends_while_none_is_answered() -> None:
    server, run = Server(), LoadRun(open_loop(1000), Bounds(4, None))
    running = asyncio.create_task(run.run(server.send))
    for answer in [await server.arrived.get() for _ in range(4)]:
        answer.set_result(None)
    await running
    assert server.most_waiting == 4


async def test_a_request_that_waits_for_room_counts_from_when_it_was_due() -> None:
    server, run = Server(), LoadRun(open_loop(1000, max_in_flight=1), Bounds(2, None))
    running = asyncio.create_task(run.run(server.send))
    first = await server.arrived.get()
    await asyncio.sleep(0.05)  # the second one is due long since
    first.set_result(None)
    (await server.arrived.get()).set_result(None)
    await running
    before, after = run.samples
    assert after.due_nanos - before.due_nanos == 1_000_000
    assert before.ended_nanos is not None and after.end_to_end_seconds is not None
    assert after.sent_nanos >= before.ended_nanos
    assert after.end_to_end_seconds >= after.late_seconds >= 0.04
    assert server.most_waiting == 1


async def test_a_failure_does_not_end_a_load() -> None:
    server, run = Server(), LoadRun(ClosedLoop(1), Bounds(2, None))
    running = asyncio.create_task(run.run(server.send))
    (await server.arrived.get()).set_result(RequestFailure("UNAVAILABLE", ""))
    (await server.arrived.get()).set_result(None)
    await running
    assert (run.num_ended, run.num_failed) == (2, 1)


async def test_a_load_that_is_broken_off_keeps_what_it_has() -> None:
    server, run = Server(), LoadRun(ClosedLoop(2), Bounds(10, None))
    running = asyncio.create_task(run.run(server.send))
    (await server.arrived.get()).set_result(None)
    await server.arrived.get()
    await server.arrived.get()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [sample.ended_nanos is not None for sample in run.samples] == [True, False, False]
    seconds = run.seconds
    assert seconds > 0
    assert run.seconds == seconds, "its clock stands still"


async def test_the_client_notes_how_late_its_own_loop_is() -> None:
    server, run = Server(), LoadRun(ClosedLoop(1), Bounds(1, None))
    running = asyncio.create_task(run.run(server.send))
    answer = await server.arrived.get()
    time.sleep(0.2)  # noqa: ASYNC251 -- this is what it is to notice
    while not run.lag.late_seconds:  # noqa: ASYNC110 -- which has no event
        await asyncio.sleep(0)
    answer.set_result(None)
    await running
    assert max(run.lag.late_seconds) >= 0.1
    assert 0 < run.lag.late_share <= 1
