"""A configuration that builds a model which cannot run is refused when the trunk is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from services.model.checkpoint import Checkpoint
from services.model.refusals import UnusableModel
from services.router.engine.trunk import Numerics, Trunk
from tests.checkpoints import save_tiny
from tests.damage import settings


async def never(*_: Any, **__: Any) -> torch.Tensor:
    raise AssertionError("no expert is asked")


@pytest.mark.parametrize("groups", [{"n_group": 0}, {"n_group": 3}, {"topk_group": 7}])
def test_groups_of_experts_that_do_not_fit_are_one_line(
    groups: dict[str, int], tmp_path: Path
) -> None:
    settings(**groups)(save_tiny("deepseek_v3", tmp_path))
    checkpoint = Checkpoint.open(tmp_path)
    with (
        torch.no_grad(),
        pytest.raises(UnusableModel, match=r"cannot run this deepseek_v3 .*config\.json"),
    ):
        Trunk(checkpoint, Numerics(torch.float32, torch.device("cpu")), never)


async def test_weights_that_settled_are_what_they_were(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path))
    with torch.no_grad():
        trunk = Trunk(checkpoint, Numerics(torch.float32, torch.device("cpu")), never)
    before = [weight.clone() for weight in trunk.model.parameters()]
    await trunk.settle(lambda: True, least_bytes=0)
    assert all(map(torch.equal, trunk.model.parameters(), before))
