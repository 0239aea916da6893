"""Memory that was freed serves the next message."""

import subprocess
import sys

import pytest

# The messages of a layer, one for each service: allocated, written once, freed together.
SCRIPT = """
import resource, sys
from services.runtime.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults_of_messages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        [bytes([service]) * 1_000_000 for service in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults_of_messages()
print(faults_of_messages())
"""


def faults(mode: str) -> int:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, timeout=60, check=True
    )
    return int(ended.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_messages_take_no_new_pages() -> None:
    assert faults("kept") < 100 < faults("as it is")
