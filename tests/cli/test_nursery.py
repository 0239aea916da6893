"""Processes that are forked elsewhere and adopted here."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.adopted import Adopted, adopting
from services.cli.birth import MAX_MESSAGE_BYTES, Birth
from services.cli.child import Child, ServiceFailed
from services.cli.members import Member, free_addresses
from services.cli.nursery import NotBorn, Nursery, nursery_for

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's help is Linux's"
)
# It leaves a process behind, as a shell does, and says which.
LEAVES_ONE = "sleep 60 >/dev/null & echo $!"
TITLED = """
from pathlib import Path
from services.runtime.process_title import set_title
set_title("a title of its own " + 9999 * "x")
print(Path("/proc/self/cmdline").read_text()[:18], flush=True)
set_title("another")
print(Path("/proc/self/cmdline").read_text().rstrip("\\0"), flush=True)
set_title("caf\\udce9")
print(Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0"))
"""


async def left_behind() -> int:
    process = await asyncio.create_subprocess_shell(LEAVES_ONE, stdout=asyncio.subprocess.PIPE)
    stdout, _ = await process.communicate()
    return int(stdout)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")


def expert(*flags: str) -> Member:
    (address,) = free_addresses(1)
    return Member.of("expert-0", "expert", address, *flags)


async def test_a_process_that_is_adopted_is_signalled_and_waited_for() -> None:
    with adopting(), adopting():
        pid = await left_behind()
    adopted = Adopted(pid)
    assert (parent_of(pid), adopted.returncode) == (os.getpid(), None)
    adopted.send_signal(signal.SIGTERM)
    assert await adopted.wait() == -signal.SIGTERM
    adopted.send_signal(signal.SIGTERM)  # which reaches nobody
    assert adopted.returncode == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        Adopted(pid)


async def test_nobody_is_adopted_afterwards() -> None:
    with adopting():
        pass
    pid = await left_behind()
    assert parent_of(pid) != os.getpid()
    os.kill(pid, signal.SIGTERM)


def test_a_title_replaces_the_arguments_as_far_as_these_reach() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TITLED], capture_output=True, text=True, check=True, timeout=30
    )
    # The last one has a byte that is no text, as a path may.
    assert done.stdout == "a title of its own\nanother\nb'caf\\xe9'\n"


async def test_an_expert_service_is_born_dies_and_is_born_again(tmp_path: Path) -> None:
    log = tmp_path / "expert-0.log"
    async with nursery_for(None, {"GRPC_VERBOSITY": "ERROR"}, tmp_path / "nursery.log") as nursery:
        assert nursery is not None
        for _ in range(2):
            member = expert()
            child = await Child.start(member, log, {"MOESAIC_LOG_LEVEL": "debug"}, nursery)
            assert await child.until_ready() == []
            assert title_of(child.pid) == " ".join(member.command)
            assert parent_of(child.pid) == os.getpid()
            assert os.getsid(child.pid) == child.pid
            os.kill(child.pid, signal.SIGKILL)
            assert await child.wait() == -signal.SIGKILL
        refused = await Child.start(expert("--thraeds=1"), log, {}, nursery)
        with pytest.raises(ServiceFailed, match=r"exit code 2(.|\n)*--threads"):
            await refused.until_ready()
        too_long = Birth("expert", ("x" * MAX_MESSAGE_BYTES,), "", {})
        with pytest.raises(NotBorn, match="a birth takes"):
            await nursery.bear(too_long, output=2, announcing=2)
    with pytest.raises(NotBorn):
        await nursery.bear(Birth("expert", (), "", {}), output=2, announcing=2)


async def test_a_member_starts_by_itself_where_the_nursery_is_gone(tmp_path: Path) -> None:
    async with nursery_for(tmp_path, {}, tmp_path / "nursery.log") as nursery:
        assert isinstance(nursery, Nursery)
    script = "import os; os.write(int(os.environ['MOESAIC_ANNOUNCE_FD']), b'ready 1\\n')"
    member = Member("expert-0", "expert", "127.0.0.1:1", (sys.executable, "-c", script))
    child = await Child.start(member, tmp_path / "log", {}, nursery)
    assert await child.until_ready() == []
    assert await child.wait() == 0
