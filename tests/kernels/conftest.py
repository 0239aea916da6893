"""Every kernel test runs once for each instruction set of this processor."""

from collections.abc import Iterator

import pytest

from services import kernels


@pytest.fixture(params=kernels.LEVELS or ["off"])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """The level in use during the test."""
    if request.param == "off":
        pytest.skip("the kernels were not built")
    before = kernels.level()
    kernels.set_level(request.param)
    yield request.param
    kernels.set_level(before)
