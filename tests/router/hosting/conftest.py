"""A tiny model, of 24 experts in 3 layers, for services in this process."""

from pathlib import Path

import pytest

from services.model.checkpoint import Checkpoint
from tests.checkpoints import save_tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("olmoe", tmp_path_factory.mktemp("models") / "olmoe")


@pytest.fixture(scope="session")
def checkpoint(model: Path) -> Checkpoint:
    return Checkpoint.open(model)
