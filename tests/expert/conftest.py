"""Tiny checkpoints, made once."""

from pathlib import Path

import pytest

from services import kernels
from services.expert import plane
from tests.checkpoints import save_tiny
from tests.expert.expert_client import Carrier


@pytest.fixture(scope="session")
def olmoe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 0 to 2 with eight experts each, hidden size 32, in float32."""
    return save_tiny("olmoe", tmp_path_factory.mktemp("olmoe"))


def has_carrier(carrier: Carrier) -> bool:
    """Whether it can be had here."""
    return carrier is Carrier.GRPC or plane.is_available()


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


@pytest.fixture(params=[carrier for carrier in Carrier if has_carrier(carrier)])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    """Each way in which streams come to the service."""
    if request.param is Carrier.HANDED_OVER:
        request.getfixturevalue("torch_for_all")
    carrier: Carrier = request.param
    return carrier


@pytest.fixture(params=[one for one in (Carrier.GRPC, Carrier.HANDED_OVER) if has_carrier(one)])
def python_carrier(request: pytest.FixtureRequest, torch_for_all: None) -> Carrier:
    """Those in which Python answers all frames, by torch."""
    carrier: Carrier = request.param
    return carrier


@pytest.fixture
def torch_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches are as those that torch computes faster."""
    monkeypatch.setattr(kernels, "most_pairs_per_expert", lambda _: 0)
