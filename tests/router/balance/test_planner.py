"""Plans are made in a process apart, which is started anew when it dies and ends with its owner."""

import asyncio
import os
import select
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from services.router.balance.planner import MAX_WAITING, Planner
from services.router.load.load import ExpertLoad
from services.router.planning.balanced import Balanced
from services.router.planning.costs import Costs
from services.router.planning.goals import WantedHosting
from services.router.planning.host import Host
from services.router.planning.plan import plan
from services.wire.errors import DeadlinePassed, Overloaded, Unavailable
from services.wire.expert_key import ExpertKey

ROOT = Path(__file__).parents[3]
EXPERTS = [ExpertKey(0, expert) for expert in range(4)]


@pytest.fixture
async def planner() -> AsyncIterator[Planner]:
    planner = Planner()
    yield planner
    await planner.close()


def is_there(pid: int) -> bool:
    """Whether a process is there and is not merely waited for."""
    try:
        return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except FileNotFoundError:
        return False


async def test_what_a_function_returns_and_refuses_comes_back(planner: Planner) -> None:
    assert planner.pid is None  # not before it is needed
    load = ExpertLoad(np.ones((1, 4)), np.ones((1, 4)))
    hosts = [Host("a", 4, frozenset(EXPERTS)), Host("b", 4)]
    costs = Costs.equal(2, 0.0, 0.0, 1.0)
    made = await planner.run(plan, load, hosts, costs, WantedHosting(EXPERTS, 1), Balanced())
    assert made.after.sum() < made.before.sum()
    with pytest.raises(Overloaded, match="too little expert memory"):
        await planner.run(
            plan,
            load,
            [Host("a", 3)],
            Costs.equal(1, 0.0, 0.0, 1.0),
            WantedHosting(EXPERTS, 1),
            Balanced(),
        )
    modules = await planner.run(eval, "set(__import__('sys').modules)")
    assert "services.router.planning.plan" in modules
    assert "torch" not in modules
    niceness = await planner.run(os.getpriority, os.PRIO_PROCESS, 0)
    assert niceness > os.getpriority(os.PRIO_PROCESS, 0)


async def test_one_that_hangs_or_dies_is_started_anew(planner: Planner) -> None:
    pids = [await planner.run(os.getpid)]
    planner.plan_seconds, patience = 0.1, planner.plan_seconds
    with pytest.raises(DeadlinePassed, match="planning took more than"):
        await planner.run(time.sleep, 1000)
    planner.plan_seconds = patience
    pids.append(await planner.run(os.getpid))
    with pytest.raises(Unavailable, match="the planning process died"):
        await planner.run(os._exit, 1)
    pids.append(await planner.run(os.getpid))
    leaving = asyncio.create_task(planner.run(time.sleep, 1000))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    pids.append(await planner.run(os.getpid))
    assert len(set(pids)) == 4
    assert [is_there(pid) for pid in pids] == [False, False, False, True]
    await planner.close()
    assert not is_there(pids[-1])
    with pytest.raises(Unavailable, match="the router stops"):
        await planner.run(os.getpid)


async def test_no_more_wait_than_a_few(planner: Planner) -> None:
    waiting = [asyncio.create_task(planner.run(os.getpid)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="plans are being waited for"):
        await planner.run(os.getpid)
    assert len(set(await asyncio.gather(*waiting))) == 1


def test_one_that_is_busy_does_not_survive_its_parent() -> None:
    script = """
import asyncio, time
from services.router.balance.planner import Planner

async def main():
    planner = Planner()
    print(await planner.run(__import__("os").getpid), flush=True)
    await planner.run(time.sleep, 1000)

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        process = os.pidfd_open(pid)  # which can be read once it has ended
        parent.kill()
        assert select.select([process], [], [], 30.0)[0]
        os.close(process)


async def test_one_that_cannot_be_started_is_started_with_the_next_plan(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Unavailable, match="the planning process cannot be started"):
        await planner.run(os.getpid)
    monkeypatch.undo()
    assert await planner.run(os.getpid) == planner.pid
