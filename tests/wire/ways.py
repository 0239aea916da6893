"""The ways in which frames are read and written: which one, speed alone decides, so tests run in each."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services import kernels
from services.wire import parsing

CHANGES = {
    "read by the generated class": None,
    "rows found by hand": (parsing, "COPIED_BYTES", -1),  # which else is for large messages
    "without checksum kernel": (kernels, "CHECKSUMS", False),
    "without kernels": (kernels, "AVAILABLE", False),
}


@contextmanager
def used(way: str) -> Iterator[None]:
    """Frames are read and written in this way."""
    with pytest.MonkeyPatch.context() as patch:
        if change := CHANGES[way]:
            patch.setattr(*change)
        yield
