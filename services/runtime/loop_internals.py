"""What event loops do not promise to keep: each name with its reason, used here alone.

`tests/runtime/test_internals.py` says at once when one of them is gone.
"""

import asyncio
from typing import Any


def descriptor_of(loop: asyncio.AbstractEventLoop) -> int | None:
    """What the loop itself waits on: an epoll descriptor, readable while the loop has anything to
    read, to write or to be woken for. Timers and what is called soon do not show. None where the
    loop has no such thing.

    No loop has a public way to be waited for together with something else.
    """
    any_loop: Any = loop
    try:
        if hasattr(loop, "_get_backend_id"):  # libuv's
            found = any_loop._get_backend_id()
        else:
            found = any_loop._selector.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return found if isinstance(found, int) and found >= 0 else None
