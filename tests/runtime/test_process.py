"""How a process ends, and what it says on the way."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

import pytest

from services.runtime.announcement import announced_warnings
from services.runtime.failures import flatten_group
from services.runtime.process import exit_code_of
from services.wire.errors import BadState, Unavailable

PREAMBLE = """
import asyncio, os, signal, sys
from services.runtime.process import run_process
from services.runtime.server import until_told_to_stop
from services.wire.errors import BadState
"""


def run(life: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a service whose life is the given body of a coroutine `life(on_ready)`."""
    body = "\n".join(f"    {line}" for line in life.splitlines())
    script = (
        f"{PREAMBLE}\nasync def life(on_ready):\n{body}\nsys.exit(run_process(life, "
        "service='expert'))"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | (variables or {}),
        check=False,
    )


def test_a_life_that_ends_is_a_success() -> None:
    ended = run("await on_ready(50051)")
    assert (ended.returncode, ended.stdout) == (0, "")


def test_a_start_that_fails_is_one_line() -> None:
    ended = run("raise BadState('the checkpoint lacks an expert')")
    assert ended.returncode == 1
    assert ended.stderr == "moesaic expert: the checkpoint lacks an expert\n"


def test_a_failure_within_task_groups_is_one_line_too() -> None:
    ended = run(
        "async def fail():\n"
        "    raise BadState('too little memory')\n"
        "async with asyncio.TaskGroup() as outer:\n"
        "    outer.create_task(fail())\n"
        "    await asyncio.Event().wait()"
    )
    assert ended.returncode == 1
    assert ended.stderr == "moesaic expert: too little memory\n"


def test_a_crashed_loop_ends_the_process_with_a_traceback() -> None:
    ended = run(
        "async def crash():\n"
        "    raise KeyError('no such row')\n"
        "async with asyncio.TaskGroup() as loops:\n"
        "    loops.create_task(crash())\n"
        "    await until_told_to_stop()"
    )
    assert ended.returncode == 1
    assert "KeyError: 'no such row'" in ended.stderr
    assert "CRITICAL expert" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_told_process_drains_and_ends_well(number: signal.Signals) -> None:
    ended = run(
        f"asyncio.get_running_loop().call_soon(os.kill, os.getpid(), {int(number)})\n"
        "await until_told_to_stop()\n"
        "print('drained')"
    )
    assert (ended.returncode, ended.stdout) == (0, "drained\n")


def test_readiness_is_announced_on_the_descriptor_and_nowhere_else() -> None:
    reading, writing = os.pipe()
    script = (
        f"{PREAMBLE}\nasync def life(on_ready): await on_ready(4711)\nrun_process(life, "
        "service='expert')"
    )
    with os.fdopen(reading) as announced:
        ended = subprocess.run(
            [sys.executable, "-c", script],
            pass_fds=(writing,),
            env=os.environ | {"MOESAIC_ANNOUNCE_FD": str(writing)},
            capture_output=True,
            timeout=60,
            check=True,
        )
        os.close(writing)
        assert announced.read() == "ready 4711\n"
    assert ended.stdout == b""


def test_what_was_warned_of_the_checkpoint_is_announced_with_readiness() -> None:
    reading, writing = os.pipe()
    life = (
        "async def life(on_ready):\n"
        "    for name in ('services.model.layout', 'services.gateway.router_link', 'a_library'):\n"
        "        logging.getLogger(name).warning('%s warns\\nof it', name)\n"
        "    await on_ready(4711)\n"
    )
    script = f"{PREAMBLE}\nimport logging\n{life}\nrun_process(life, service='expert')"
    variables = os.environ | {"MOESAIC_ANNOUNCE_FD": str(writing)}
    subprocess.run(
        [sys.executable, "-c", script], pass_fds=(writing,), env=variables, timeout=60, check=True
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as announced:
        line = announced.read()
    assert announced_warnings(line) == ["services.model.layout warns of it"]
    assert announced_warnings(b"ready 1\n") == []
    assert announced_warnings(b"") is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_a_process_dies_with_its_parent() -> None:
    life = (
        "asyncio.get_running_loop().call_later(30, os._exit, 9)\n"
        "async with asyncio.TaskGroup() as tasks:\n"
        "    tasks.create_task(until_told_to_stop())\n"
        "    await asyncio.sleep(0)\n"  # now it listens for signals
        "    await on_ready(1)\n"
        "print('orphan left', flush=True)"
    )
    body = "\n".join(f"    {line}" for line in life.splitlines())
    child = (
        f"{PREAMBLE}\nasync def life(on_ready):\n{body}\nsys.exit(run_process(life, "
        "service='expert'))"
    )
    parent = f"""
import os, subprocess, sys
reading, writing = os.pipe()
variables = dict(os.environ, MOESAIC_PARENT_PID=str(os.getpid()), MOESAIC_ANNOUNCE_FD=str(writing))
subprocess.Popen([sys.executable, "-c", {child!r}], pass_fds=(writing,), env=variables)
os.close(writing)
os.read(reading, 100)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    # The orphan holds the other end of stdout: `run` returns only once it is gone.
    ended = subprocess.run(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b"orphan left\n"


def test_a_bad_process_setting_is_a_usage_error() -> None:
    ended = run("pass", {"MOESAIC_LOG_LEVEL": "chatty"})
    assert ended.returncode == 2
    assert "MOESAIC_LOG_LEVEL" in ended.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MOESAIC_KERNELS", "fast"),
        ("MOESAIC_NATIVE_STREAMS", "yes"),
        ("MOESAIC_METRICS_PORT", "many"),
        ("MOESAIC_ANNOUNCE_FD", "77"),
        ("MOESAIC_PARENT_PID", "0"),
    ],
)
def test_every_bad_process_setting_is_a_line_that_names_its_variable(
    variable: str, value: str
) -> None:
    ended = run("pass", {variable: value})
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"moesaic expert: {variable}: '{value}': ")
    assert ended.stderr.count("\n") == 1


def test_whoever_wanted_to_know_of_readiness_may_have_left() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = (
        f"{PREAMBLE}\nasync def life(on_ready): await on_ready(1)\nsys.exit(run_process(life, "
        "service='expert'))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        pass_fds=(writing,),
        env=os.environ | {"MOESAIC_ANNOUNCE_FD": str(writing)},
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert ended.returncode == 0


def test_what_the_system_has_no_more_of_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> None:
        raise ExceptionGroup("", [OSError(errno.EMFILE, os.strerror(errno.EMFILE))])

    assert exit_code_of(failing, command="serve") == 1
    assert capsys.readouterr().err == "moesaic serve: the system refuses: Too many open files\n"


def test_a_part_that_cannot_be_imported_is_one_line() -> None:
    script = (
        "from services.runtime.process import run_service\nfrom services.runtime.process import "
        "ProcessSettings\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"{script}run_service('nothing', ProcessSettings, [])"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        "moesaic nothing: No module named 'services.nothing'\n",
    )


def test_an_interrupted_command_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert exit_code_of(interrupted, command="generate") == 130
    assert capsys.readouterr().err == ""


def test_every_failure_of_a_group_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> None:
        raise ExceptionGroup("", [BadState("one"), ExceptionGroup("", [Unavailable("two")])])

    assert exit_code_of(failing, command="serve") == 1
    assert capsys.readouterr().err == "moesaic serve: one\nmoesaic serve: two\n"


def test_an_exception_is_its_own_leaf() -> None:
    error = ValueError()
    assert flatten_group(error) == [error]


def test_threads_are_counted_and_told_to_sleep_before_torch_is_imported(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    package = tmp_path_factory.mktemp("fake") / "app.py"
    package.write_text(
        "import os\n"
        "async def run(settings, *, on_ready):\n"
        "    print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])\n"
        "    print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    script = f"""
import importlib.util, sys
from pydantic_settings import BaseSettings
from services.runtime.process import run_service
spec = importlib.util.spec_from_file_location("services.fake.app", {str(package)!r})
sys.modules["services.fake.app"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
class FakeSettings(BaseSettings):
    threads: int = 1
assert "torch" not in sys.modules
sys.exit(run_service("fake", FakeSettings, ["--threads", "3"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "3 3\nPASSIVE\n"
