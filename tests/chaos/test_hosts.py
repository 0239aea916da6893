"""A cluster whose hosts are apart answers every request, and with the same bytes, while the network
between them fails.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from bench.hosting.findings import findings_of, table_of
from tests.chaos.hosts import Trial, trial
from tests.chaos.network import Host, what_forbids_hosts

FIRST, SECOND, ANOTHER = "10.0.0.2", "10.0.0.3", "10.0.0.4"
DELAY_SECONDS, LOSS = 0.05, 0.01  # there and back
# Shorter than requests wait for an expert that nobody can compute.
OUTAGE_SECONDS = 0.5
NUM_ANSWERS = 8  # while one of them is far away
WIDTH = 140


@pytest.mark.alone
async def test_nobody_notices_what_befalls_the_network(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if forbidden := what_forbids_hosts():
        pytest.skip(f"there can be no hosts of their own: {forbidden}")
    async with trial(tmp_path, FIRST, SECOND, coverage=2) as made:
        first, second = made.cluster.services.values()
        reference = await made.streams.each_once()
        async with made.streams.asking():
            await cut_off(made, second)
            await dumb(made, second)
            await far_away(made, second)
            await comes_back_elsewhere(made, first, second)
        findings = findings_of(made.windows, made.streams.answers, reference)
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as shown:
        console.print(table_of("the network between hosts fails", findings).as_rich())
    record_property("chaos", shown.get())
    assert [complaint for finding in findings for complaint in finding.complaints()] == []
    assert all(finding.num_requests for finding in findings)


async def outage(made: Trial, *left: str) -> None:
    """Returns when it has lasted, and the router uses those that are left."""
    await asyncio.sleep(OUTAGE_SECONDS)
    await made.until_used(*left)


async def cut_off(made: Trial, host: Host) -> None:
    async with made.befalling("one of two is cut off"):
        host.cut()
        await outage(made, FIRST)
        host.restore()


async def dumb(made: Trial, host: Host) -> None:
    """What it is sent arrives, and what it says is lost."""
    num_heard, num_lost = host.into.num_carried, host.out.num_lost
    async with made.befalling("replies of one of two are lost"):
        host.out.loss = 1.0
        await outage(made, FIRST)
        host.restore()
    assert host.into.num_carried > num_heard
    assert host.out.num_lost > num_lost


async def far_away(made: Trial, host: Host) -> None:
    """Its way is long, and loses packets; the other one gets the work."""
    before = await made.layers_held_up()
    async with made.befalling(f"{DELAY_SECONDS * 1e3:.0f} ms and {LOSS:.0%} loss to one of two"):
        for way in (host.into, host.out):
            way.delay_seconds, way.loss = DELAY_SECONDS / 2, LOSS
        await made.streams.until_answered(NUM_ANSWERS)
        held_up = await made.layers_held_up() - before
        host.restore()
    assert held_up[SECOND] < held_up[FIRST]


async def comes_back_elsewhere(made: Trial, first: Host, second: Host) -> None:
    """And meanwhile there is one way alone, which is cut for a time."""
    async with made.befalling("one of two vanishes, and the other is cut off"):
        made.cluster.vanish(SECOND)
        first.cut()
        await outage(made)
        first.restore()
    async with made.befalling("the one comes back under another address"):
        made.cluster.come_back(second, ANOTHER)
