"""Tiny checkpoints, made once."""

from pathlib import Path

import pytest

from tests.checkpoints import save_tiny


@pytest.fixture(scope="session")
def olmoe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 0 to 2 with eight experts each, hidden size 32, in float32."""
    return save_tiny("olmoe", tmp_path_factory.mktemp("olmoe"))
