"""Every kernel test runs once for each instruction set of this processor; what is made of products
also with the matrix unit's, which every processor has emulated.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services import kernels

PARAMS = kernels.LEVELS or ["off"]
PRODUCT_PARAMS = [*kernels.LEVELS, kernels.EMULATED] if kernels.AVAILABLE else ["off"]


@pytest.fixture(params=PARAMS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """The level in use during the test."""
    with _used(request.param):
        yield request.param


@pytest.fixture(params=PRODUCT_PARAMS)
def product_level(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same, of those that differ in their products."""
    with _used(request.param):
        yield request.param


@pytest.fixture(scope="module", params=PARAMS)
def level_of_examples(request: pytest.FixtureRequest) -> Iterator[str]:
    """The level for property tests, whose examples share their fixtures."""
    with _used(request.param):
        yield request.param


@pytest.fixture(scope="module", params=PRODUCT_PARAMS)
def product_level_of_examples(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same, of those that differ in their products."""
    with _used(request.param):
        yield request.param


@contextmanager
def _used(name: str) -> Iterator[None]:
    if name == "off":
        pytest.skip("the kernels were not built")
    before = kernels.level()
    kernels.set_level(name)
    try:
        yield
    finally:
        kernels.set_level(before)
