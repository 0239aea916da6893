"""What holds for every test, and what tests of several folders share."""

import os
from collections.abc import Iterator

import pytest

# Before grpc is imported: services that are stopped in the middle of calls, as here, are no news.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


@pytest.fixture
def gradients_as_before() -> Iterator[None]:
    """A router turns gradients off for its thread, for good; here that is the thread of every other test too."""
    import torch  # most tests need none

    was_enabled = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(was_enabled)
