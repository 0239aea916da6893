"""What `make run` installs torch with, and what it says meanwhile."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CPU = ["install uv", "pip install --python {python} --torch-backend=cpu torch==1"]
PLAIN = ["install torch==1"]
# In place of pip and of uv: it writes down what it is asked for.
PIP = """#!/bin/bash
if [ "$1" = config ]; then
    echo "$CONFIGURED"
    for each in {1..9999}; do echo more || exit; done
    exit
fi
echo "$@" >> "${0%/*}/calls"
echo "Collecting $2"
exit ${FAILS:-0}
"""


def set_up(folder: Path, *, gpu: bool = False, **variables: str) -> tuple[list[str], str, int]:
    """What pip was asked for, what was said, and the exit code, on a machine with x86-64."""
    tools, venv = folder / "tools", folder / "venv" / "bin"
    for place in (tools, venv):
        place.mkdir(parents=True)
    scripts = {
        tools / "uname": "#!/bin/bash\necho Linux x86_64\n",
        venv / "pip": PIP,
        venv / "uv": PIP,
        venv / "python": "#!/bin/bash\n",
    }
    if gpu:
        scripts[tools / "nvidia-smi"] = "#!/bin/bash\n"
    for path, text in scripts.items():
        path.write_text(text)
        path.chmod(0o755)
    ended = subprocess.run(
        [ROOT / "scripts/set-up", "python3", str(venv.parent), "torch==1"],
        env={"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    calls = venv / "calls"
    return calls.read_text().splitlines() if calls.exists() else [], ended.stderr, ended.returncode


@pytest.mark.parametrize(
    ("machine", "asked"),
    [
        ({}, CPU),
        ({"gpu": True}, PLAIN),
        ({"gpu": True, "TORCH": "cpu"}, CPU),
        ({"TORCH": "cuda"}, PLAIN),
        ({"CONFIGURED": "global.index-url='https://mirror'"}, PLAIN),
        ({"CONFIGURED": ":env:.find-links='/opt/wheels'", "TORCH": "cpu"}, CPU),
        ({"TORCH_FLAGS": "--pre", "TORCH": "cpu"}, ["install --pre torch==1"]),
    ],
    ids=str,
)
def test_torch_is_the_build_for_cpus_where_there_is_no_gpu_and_nothing_else_was_said(
    machine: dict[str, str], asked: list[str], tmp_path: Path
) -> None:
    if not os.path.exists("/bin/bash"):
        pytest.skip("there is no bash")
    calls, said, code = set_up(tmp_path, **machine)  # type: ignore[arg-type]
    assert code == 0, said
    python = tmp_path / "venv/bin/python"
    packages = [*(each.format(python=python) for each in asked), "install -c constraints.txt -e ."]
    assert calls == packages
    assert [line[:3] for line in said.splitlines() if line[0] != " "] == ["1/3", "2/3"]
    assert said.count("done in") == len(packages)


def test_what_fails_is_said_with_the_end_of_its_log(tmp_path: Path) -> None:
    _, said, code = set_up(tmp_path, FAILS="1")
    assert code == 1
    assert "Collecting uv" in said
    assert "this failed: " in said


def test_another_torch_is_refused(tmp_path: Path) -> None:
    calls, said, code = set_up(tmp_path, TORCH="rocm")
    assert (calls, code) == ([], 2)
    assert "TORCH is cpu or cuda, not 'rocm'" in said
