"""The README's blocks, run in their order by a bare shell of somebody new."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 120.0
# What a comment that readers do not see says of a block.
NOT_RUN = {"installs", "docker"}
BACKGROUND, PRINTED_BY = "in the background", "printed by "
NUMBER = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True)
class Block:
    """Lines to be typed, or that were printed; what the comment before them says."""

    text: str
    mark: str


def blocks() -> Iterator[Block]:
    """Of the README; a drawing before the first heading is none."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text[text.index("\n## ") :]
    for match in re.finditer(r"(?:<!-- (.*?) -->\n)?^```\n(.*?)^```", text, re.M | re.S):
        yield Block(match[2], match[1] or "")


def shape_of(printed: str) -> re.Pattern[str]:
    """What was printed, with any numbers and any room between words."""
    return re.compile(r"\s+".join(map(_shape, printed.split())))


def _shape(word: str) -> str:
    return r"\d[\d.,]*".join(map(re.escape, NUMBER.split(word)))


class Newcomer:
    """Somebody in a tree with a built .venv, with no settings, and a shell that knows nothing."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "moesaic"
        self.tree.mkdir()
        for name in (".venv", "Makefile"):
            (self.tree / name).symlink_to(ROOT / name)
        self._environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
        self._activation = ""
        self._serving: subprocess.Popen[str] | None = None
        self.addresses: dict[str, str] = {}

    def types(self, block: Block) -> str:
        """What it printed, on both streams; fails where the shell did."""
        if block.text.startswith(". "):
            self._activation = block.text
        for usual, here in self.addresses.items():
            block = Block(block.text.replace(usual, here), block.mark)
        ended = subprocess.run(self._shell(block), **self._streams, timeout=SECONDS, check=False)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def starts(self, block: Block) -> None:
        """Type it in another terminal, and wait until it says that it is ready."""
        self._serving = subprocess.Popen(
            self._shell(block), **self._streams, start_new_session=True
        )
        assert self._serving.stdout is not None
        said = []
        while not (line := self._serving.stdout.readline()).startswith("ready: "):
            said.append(line)
            assert line, "".join(said)
        (cluster,) = json.loads(self.types(Block("moesaic status --json\n", "")))
        self.addresses = {
            "127.0.0.1:8000": cluster["http"],
            "127.0.0.1:16686": cluster["tracing"].removeprefix("http://"),
        }

    def has_stopped(self) -> bool:
        """Whether what was started has ended well, as it does in a moment where it was told to."""
        return self._serving is not None and self._serving.wait(SECONDS) == 0

    def leaves(self) -> None:
        """Nothing goes on."""
        if self._serving is not None:
            if self._serving.poll() is None:
                os.killpg(self._serving.pid, signal.SIGTERM)
            self._serving.communicate(timeout=SECONDS)

    def _shell(self, block: Block) -> list[str]:
        script = block.text if block.text == self._activation else self._activation + block.text
        return ["bash", "--norc", "--noprofile", "-ec", script]

    @property
    def _streams(self) -> dict[str, Any]:
        return {
            "cwd": self.tree,
            "env": self._environment,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path)
    yield newcomer
    newcomer.leaves()


def test_every_block_of_the_readme_runs_in_its_order_and_prints_what_it_claims(
    newcomer: Newcomer,
) -> None:
    claimed = [block for block in blocks() if block.mark.startswith(PRINTED_BY)]
    assert [block.mark for block in claimed] == ["printed by generate", "printed by status"]
    printed: dict[str, str] = {}
    for block in blocks():
        if block.mark in NOT_RUN or block in claimed:
            continue
        if block.mark == BACKGROUND:
            newcomer.starts(block)
            continue
        for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
            said = newcomer.types(Block(f"{line}\n", ""))
            words = line.split()
            printed[words[1] if words[0] == "moesaic" else words[0]] = said
            print(f"{line}\n{said}")  # shown where the test fails
    assert newcomer.has_stopped()
    for block in claimed:
        # Before such a line stands a sample of what the model may say.
        text = block.text.rpartition("…\n")[2]
        assert shape_of(text).search(printed[block.mark.removeprefix(PRINTED_BY)])
    assert json.loads(printed["curl"])["choices"][0]["text"]
    assert "router.step" in printed["trace"]
