"""What is there before serving is not looked at again; what comes later is."""

import subprocess
import sys

SCRIPT = """
import gc, weakref
from services.runtime.garbage import set_aside_what_stays

class Ring:
    def __init__(self):
        self.own = self

stays = [[] for _ in range(100_000)]
before = weakref.ref(Ring())
set_aside_what_stays()
later = weakref.ref(Ring())
num_looked_at = len(gc.get_objects())
gc.collect()
print(before() is None, later() is None, num_looked_at < 10_000)
"""


def test_only_what_came_later_is_looked_at_and_garbage_of_before_and_of_later_is_freed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == ["True", "True", "True"]
