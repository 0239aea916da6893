"""Tiny checkpoints, made once."""

from pathlib import Path

import pytest

from services import kernels
from tests.checkpoints import save_tiny


@pytest.fixture(scope="session")
def olmoe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 0 to 2 with eight experts each, hidden size 32, in float32."""
    return save_tiny("olmoe", tmp_path_factory.mktemp("olmoe"))


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nothing could be compiled: results are bit for bit transformers'."""
    monkeypatch.setattr(kernels, "AVAILABLE", False)


@pytest.fixture(params=["torch", "compiled"])
def either_way(request: pytest.FixtureRequest) -> str:
    """Once with torch alone and once with the compiled kernels."""
    way: str = request.param
    if way == "torch":
        request.getfixturevalue("torch_alone")
    return way
