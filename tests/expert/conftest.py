"""Tiny checkpoints, made once."""

from pathlib import Path

import pytest
import torch

from tests.checkpoints import save_tiny


@pytest.fixture(scope="session")
def olmoe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 0 to 2 with eight experts each, hidden size 32, in float32."""
    return save_tiny("olmoe", tmp_path_factory.mktemp("olmoe"))


@pytest.fixture(scope="session")
def tiny_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in bfloat16."""
    return save_tiny("olmoe", tmp_path_factory.mktemp("olmoe-bf16"), torch.bfloat16)
