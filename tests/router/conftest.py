"""What the router's tests share."""

from collections.abc import Iterator

import pytest

from services import kernels


@pytest.fixture(scope="module", params=["kernels", "torch"])
def with_and_without_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything runs twice: on the compiled kernels, and as where there are none."""
    if request.param == "kernels" and not kernels.AVAILABLE:
        pytest.skip("the kernels were not built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "AVAILABLE", request.param == "kernels")
        yield
