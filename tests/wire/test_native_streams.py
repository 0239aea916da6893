"""The environment says whether streams of frames may be native."""

import os
import subprocess
import sys

import pytest

SAY = "from services.wire import native_streams; print(native_streams.ENABLED)"


def said_with(value: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MOESAIC_NATIVE_STREAMS": value}
    return subprocess.run(
        [sys.executable, "-c", SAY],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("value", "enabled"), [("", True), ("on", True), ("off", False)])
def test_they_are_unless_that_is_switched_off(value: str, enabled: bool) -> None:
    assert said_with(value).stdout == f"{enabled}\n"


def test_a_word_that_means_nothing_is_told() -> None:
    ended = said_with("yes")
    assert ended.returncode != 0
    assert "ImportError: MOESAIC_NATIVE_STREAMS: 'yes': it should be on or off" in ended.stderr
