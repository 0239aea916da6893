"""Standard streams that are closed, full, or that nobody reads any more."""

import os
import subprocess
import sys

import pytest

from services.runtime.streams import is_lost_output

FULL = "/dev/full"
PREAMBLE = "import os, sys\nfrom services.runtime.streams import standard_streams"
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(body: str, redirection: str = "", **variables: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program in whose streams the shell puts what the
    redirection says.
    """
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    script = f"{PREAMBLE}\nwith standard_streams('it'):\n{indented}"
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -P -c "$1" {redirection}', sys.executable, script],
        capture_output=True,
        text=True,
        env=BUFFERED | variables,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    "closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
)
def test_a_closed_stream_is_nowhere_and_its_number_goes_to_nobody_else(closed: str) -> None:
    body = (
        "assert sys.stdin.read() == ''\n"
        "print('é told', flush=True)\n"
        "print('é said', file=sys.stderr, flush=True)\n"
        "assert min(os.pipe()) > 2\n"
        "import subprocess\n"
        "subprocess.run([sys.executable, '-c', 'import sys; assert None not in (sys.stdin, "
        "sys.stdout, sys.stderr)'],"
        " check=True)"
    )
    code, stdout, stderr = run(body, f"{closed} </dev/null" if "<" not in closed else closed)
    assert code == 0
    assert stdout == ("" if ">&-" in closed.replace("2>&-", "") else "é told\n")
    assert stderr == ("" if "2>&-" in closed else "é said\n")


@pytest.mark.skipif(not os.path.exists(FULL), reason="the device is Linux's")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("body", ["print('told')", "print('told')\nsys.exit(0)"])
def test_output_that_nothing_has_room_for_is_told_in_a_line(body: str, unbuffered: str) -> None:
    code, _, stderr = run(body, f">{FULL}", PYTHONUNBUFFERED=unbuffered)
    assert (code, stderr) == (1, "it: the output cannot be written: No space left on device\n")


@pytest.mark.skipif(not os.path.exists(FULL), reason="the device is Linux's")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_help_that_nothing_has_room_for_is_no_success(unbuffered: str) -> None:
    body = (
        "from services.cli.settings import GenerateSettings\n"
        "from services.runtime.settings import load\n"
        "load(GenerateSettings, ['--help'], 'it')"
    )
    code, _, stderr = run(body, f">{FULL}", PYTHONUNBUFFERED=unbuffered)
    assert (code, stderr) == (1, "it: the output cannot be written: No space left on device\n")


@pytest.mark.skipif(not os.path.exists(FULL), reason="the device is Linux's")
def test_what_nobody_can_read_on_stderr_is_no_failure() -> None:
    body = "print('said', file=sys.stderr)\nprint('told')"
    assert run(body, f"2>{FULL}") == (0, "told\n", "")


def test_a_reader_of_stdout_that_left_ends_it_quietly() -> None:
    body = "reading, writing = os.pipe()\nos.dup2(writing, 1)\nos.close(reading)\nprint('told')"
    assert run(body) == (141, "", "")


def test_a_text_that_the_terminal_lacks_is_replaced() -> None:
    assert run("print('caf\\xe9 \\u2026')", PYTHONIOENCODING="ascii") == (0, "caf? ?\n", "")


def test_a_file_that_cannot_be_opened_is_no_lost_output() -> None:
    assert not is_lost_output(OSError(28, "No space left on device", "run.json"))
    assert is_lost_output(OSError(28, "No space left on device"))
