"""How far the members of a starting cluster are, on a terminal and elsewhere."""

import asyncio
import io

from rich.console import Console

from moesaic.v1 import expert_pb2
from services.cli.report import Report
from services.cli.startup_view import Row, shown_rows

MEGABYTE = 10**6
ABOUT = expert_pb2.ExpertServiceDescribeResponse(
    expert_bytes=[MEGABYTE, MEGABYTE], moe_layers=[0, 1], num_experts=4
)
READY, LOADING = expert_pb2.EXPERT_STATE_READY, expert_pb2.EXPERT_STATE_LOADING


class Written(io.StringIO):
    """What is written, and an event for a text that a test waits for."""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self.has_come = asyncio.Event()
        self._awaited = awaited
        self._loop = asyncio.get_running_loop()

    def write(self, text: str) -> int:
        count = super().write(text)
        if self._awaited in self.getvalue():  # bars are written by a thread of their own
            self._loop.call_soon_threadsafe(self.has_come.set)
        return count


def hosting(num_ready: int, num_loading: int = 0) -> expert_pb2.WatchHostingResponse:
    states = [READY] * num_ready + [LOADING] * num_loading
    experts = [expert_pb2.HostedExpert(expert=at, state=state) for at, state in enumerate(states)]
    return expert_pb2.WatchHostingResponse(experts=experts)


def test_a_service_is_measured_by_its_even_share() -> None:
    seconds = [0.0]
    row = Row("expert-0", now=lambda: seconds[0])
    assert row.take(ABOUT, hosting(0), coverage=1, num_services=2) == 0
    assert row.figures == "starts"
    row.take(ABOUT, hosting(0, 2), coverage=1, num_services=2)
    assert row.figures == "reads experts: 0.0 of 4.0 MB"
    assert row.take(ABOUT, hosting(4), coverage=1, num_services=2) == 4
    assert row.figures == "has its experts: 4.0 of 4.0 MB"
    row.ready()
    assert row.figures == "is ready"


def test_more_coverage_than_services_is_everything_on_each() -> None:
    row = Row("expert-0")
    row.take(ABOUT, hosting(1), coverage=8, num_services=2)
    assert row.progress is not None
    assert row.progress.total_bytes == 8 * MEGABYTE


def test_a_phase_that_lasts_says_for_how_long() -> None:
    seconds = [0.0]
    row = Row("router", now=lambda: seconds[0])
    row.is_at("warms up")
    assert row.figures == "warms up"
    seconds[0] = 7.0
    row.is_at("warms up")
    assert row.figures == "warms up (7 s)"


async def test_without_a_terminal_every_member_is_in_a_line_now_and_then() -> None:
    rows = [Row("expert-0"), Row("router")]
    rows[0].take(ABOUT, hosting(1, 1), coverage=1, num_services=2)
    written = Written("router starts\n")
    report = Report(Console(file=written, width=200))
    async with shown_rows(rows, report, line_seconds=0.001):
        await written.has_come.wait()
    first, second, *_ = written.getvalue().splitlines()
    assert first == "starting the cluster"
    assert second == "starting: expert-0 reads experts: 1.0 of 4.0 MB; router starts"


async def test_on_a_terminal_every_member_has_a_bar() -> None:
    row = Row("expert-0")
    row.take(ABOUT, hosting(1, 1), coverage=1, num_services=2)
    written = Written("reads experts: 1.0 of 4.0 MB")
    console = Console(file=written, width=100, force_terminal=True)
    async with shown_rows([row], Report(console)):
        await written.has_come.wait()
    assert "expert-0" in written.getvalue()
    assert "━" in written.getvalue()
