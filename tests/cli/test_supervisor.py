"""Processes that crash, refuse to start, or do not want to stop."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.cli.child import ServiceFailed
from services.cli.members import Member
from services.cli.supervisor import Supervisor

READY = (
    "import os, signal, sys, time\nos.write(int(os.environ['MOESAIC_ANNOUNCE_FD']), b'ready 1\\n"
    "')\n"
)
WAIT = "signal.pause()\n"


class Reports:
    """Collects what is reported, and lets a test wait for it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._changed = asyncio.Event()

    def __call__(self, text: str) -> None:
        self.texts.append(text)
        self._changed.set()

    async def until(self, count: int) -> None:
        while len(self.texts) < count:
            self._changed.clear()
            await self._changed.wait()


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def supervise(tmp_path: Path, reports: Reports) -> Callable[..., Supervisor]:
    def supervise(script: str, backoff_seconds: float = 0.01) -> Supervisor:
        member = Member("expert-0", "expert", "127.0.0.1:1", (sys.executable, "-c", script))
        return Supervisor(
            member,
            tmp_path,
            {},
            reports,
            first_backoff_seconds=backoff_seconds,
            refused_seconds=0.01,
        )

    return supervise


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_member_is_ready_when_it_says_so_and_stops_when_told(
    supervise: Callable[..., Supervisor],
) -> None:
    supervisor = supervise(READY + WAIT)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await supervisor.ready.wait()
        pid = supervisor.pid
        await supervisor.stop(10)
    assert pid is not None
    assert not is_running(pid)
    assert supervisor.pid is None


async def test_what_a_start_warned_of_is_reported(
    supervise: Callable[..., Supervisor], reports: Reports
) -> None:
    supervisor = supervise(READY.replace("ready 1", 'ready 1 ["tensors have no place"]') + WAIT)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await supervisor.ready.wait()
        await supervisor.stop(10)
    assert reports.texts == ["tensors have no place"]


async def test_a_crashed_member_is_started_again(
    supervise: Callable[..., Supervisor], reports: Reports
) -> None:
    supervisor = supervise(READY + WAIT)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await supervisor.ready.wait()
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        await reports.until(2)
        await supervisor.stop(10)
    assert "expert-0 ended by itself (signal SIGKILL)" in reports.texts[0]
    assert "started again" in reports.texts[0]
    assert reports.texts[1].startswith("expert-0 is ready again, pid ")


async def test_a_member_that_keeps_crashing_is_given_up(
    supervise: Callable[..., Supervisor], reports: Reports
) -> None:
    supervisor = supervise(READY + "print('out of luck'); sys.exit(7)")
    with pytest.raises(ServiceFailed) as failure:
        await supervisor.run()
    assert [text for text in reports.texts if "is ready again" not in text] == reports.texts[::2]
    assert "exit code 7" in str(failure.value)
    assert "out of luck" in str(failure.value)
    assert "crashed 3 times within a minute" in str(failure.value)


async def test_a_member_that_does_not_start_is_given_up_at_once_with_its_last_words(
    supervise: Callable[..., Supervisor], reports: Reports
) -> None:
    supervisor = supervise("import sys; sys.exit('the checkpoint is missing')")
    with pytest.raises(
        ServiceFailed, match=r"expert-0 did not start \(exit code 1\)\n.*checkpoint is missing"
    ):
        await supervisor.run()
    assert reports.texts == []


async def test_a_restart_that_fails_counts_as_a_crash(
    supervise: Callable[..., Supervisor], reports: Reports, tmp_path: Path
) -> None:
    once = (
        f"import pathlib\nmark = pathlib.Path({str(tmp_path / 'mark')!r})\nif mark.exists(): raise "
        "SystemExit(5)\n"
    )
    supervisor = supervise(once + "mark.touch()\n" + READY + "sys.exit(6)")
    with pytest.raises(ServiceFailed, match="did not start"):
        await supervisor.run()
    assert "exit code 6" in reports.texts[0]
    assert "exit code 5" in reports.texts[1]


async def test_an_expert_service_that_is_refused_when_it_starts_again_is_tried_until_it_can(
    supervise: Callable[..., Supervisor], reports: Reports, tmp_path: Path
) -> None:
    count = f"import pathlib\npath = pathlib.Path({str(tmp_path / 'count')!r})\n"
    count += (
        "number = int(path.read_text()) + 1 if path.exists() else 0\npath.write_text(str(number))\n"
    )
    refused = "import sys\nif 1 <= number <= 5: sys.exit('model.safetensors is truncated')\n"
    supervisor = supervise(count + refused + READY + "if number == 0: sys.exit(7)\n" + WAIT)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await reports.until(3)
        await supervisor.stop(10)
    ended, why, again = reports.texts
    assert "exit code 7" in ended
    assert why.startswith("expert-0 did not start (exit code 1)\n")
    assert "model.safetensors is truncated" in why
    assert why.endswith("expert-0 is tried again every 0.01 s")
    assert again.startswith("expert-0 is ready again, pid ")


async def test_a_member_that_ignores_the_signal_is_killed(
    supervise: Callable[..., Supervisor],
) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    supervisor = supervise(deaf + READY + "while True: signal.pause()\n")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await supervisor.ready.wait()
        pid = supervisor.pid
        await supervisor.stop(0.05)
    assert pid is not None
    assert not is_running(pid)


async def test_a_member_told_to_stop_while_it_starts_is_no_failure(
    supervise: Callable[..., Supervisor],
) -> None:
    supervisor = supervise("import signal; signal.pause()")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        while supervisor.pid is None:  # noqa: ASYNC110 -- nothing tells of a process that is not ready
            await asyncio.sleep(0)
        await supervisor.stop(10)


async def test_a_member_told_to_stop_before_it_is_there_is_not_left_behind(
    supervise: Callable[..., Supervisor],
) -> None:
    supervisor = supervise(READY + WAIT)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await asyncio.sleep(0)
        assert supervisor.pid is None
        await supervisor.stop(10)


async def test_a_cancelled_supervisor_leaves_no_process(
    supervise: Callable[..., Supervisor],
) -> None:
    supervisor = supervise(READY + WAIT)
    running = asyncio.ensure_future(supervisor.run())
    await supervisor.ready.wait()
    pid = supervisor.pid
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pid is not None
    assert not is_running(pid)


async def test_waiting_between_two_starts_ends_when_told_to_stop(
    supervise: Callable[..., Supervisor], reports: Reports
) -> None:
    supervisor = supervise(READY + "sys.exit(3)", backoff_seconds=3600)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await reports.until(1)
        await supervisor.stop(10)


async def test_a_member_starts_again_though_its_folder_was_tidied_away(
    tmp_path: Path, reports: Reports
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    member = Member("expert-0", "expert", "127.0.0.1:1", (sys.executable, "-c", READY + WAIT))
    supervisor = Supervisor(member, folder, {}, reports, first_backoff_seconds=0.01)
    running = asyncio.ensure_future(supervisor.run())
    await supervisor.ready.wait()
    shutil.rmtree(folder)
    assert supervisor.pid is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    await reports.until(2)
    assert reports.texts[1].startswith("expert-0 is ready again")
    await supervisor.stop(10)
    await running
