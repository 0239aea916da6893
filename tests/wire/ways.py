"""The ways in which frames are read and written: all understand the same bytes, so tests run in
each.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services.wire import native

NATIVE, GENERATED = "native codec", "generated classes"
WAYS = (NATIVE, GENERATED) if native.AVAILABLE else (GENERATED,)


@contextmanager
def used(way: str) -> Iterator[None]:
    """Frames are read and written in this way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "AVAILABLE", way == NATIVE)
        yield
