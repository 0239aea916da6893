"""Threads that go behind others of their process."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.runtime.yielding import NICENESS, yield_to_others

OF_THE_PROCESS = 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="niceness is a thread's on Linux")
def test_a_thread_goes_behind_others_of_a_process_that_is_nice_itself() -> None:
    def niceness() -> int:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, OF_THE_PROCESS)
        yield_to_others()
        return os.getpriority(os.PRIO_PROCESS, thread)

    with ThreadPoolExecutor(max_workers=1) as threads:
        assert threads.submit(niceness).result() == OF_THE_PROCESS + NICENESS
