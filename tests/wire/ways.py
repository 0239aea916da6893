"""The ways in which frames are read and written: all understand the same bytes, so tests run in each."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services import kernels

WITH_KERNELS, WITHOUT_KERNELS = "with kernels", "without kernels"
WAYS = (WITH_KERNELS, WITHOUT_KERNELS) if kernels.AVAILABLE else (WITHOUT_KERNELS,)


@contextmanager
def used(way: str) -> Iterator[None]:
    """Frames are read and written in this way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "AVAILABLE", way == WITH_KERNELS)
        yield
