"""The framing in C: bytes that are read late are dated by the kernel."""

import subprocess

import pytest

from tests.wire.http2.conftest import Build


@pytest.mark.alone
def test_bytes_are_dated_when_they_came_not_when_they_are_read(build: Build) -> None:
    said = subprocess.run([build("stamps")], capture_output=True, text=True, timeout=30, check=True)
    micros_after_sending, micros_before_reading = map(int, said.stdout.split())
    assert -1000 < micros_after_sending < 100_000
    assert micros_before_reading > 100_000
