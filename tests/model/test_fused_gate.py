"""A fused gate stands in for gates that it does the same as, and for no others."""

import pytest
import torch

from services import kernels
from services.model.fused_gate import FusedGate, fused_gate
from services.router.engine.remote_experts import GATE_NAMES
from tests.checkpoints import tiny_model

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels are not built")


class Begun:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def gate_of(family: str, dtype: torch.dtype) -> torch.nn.Module:
    model = tiny_model(family, dtype).requires_grad_(False)
    return next(
        module
        for path, module in model.named_modules()
        if path.rpartition(".")[2] in GATE_NAMES and ".2." in path
    )


@torch.no_grad()
@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "gpt_oss"])
def test_a_gate_of_a_common_form_gives_what_it_gave(
    family: str, dtype: torch.dtype, always: bool
) -> None:
    inner, begun = gate_of(family, dtype), Begun()
    fused = fused_gate(inner, dtype, begun, always=always)
    assert isinstance(fused, FusedGate)
    already = begun.times
    for num_rows in (1, 5, 400):
        rows = torch.randn(num_rows, 32, generator=torch.Generator().manual_seed(num_rows)).to(
            dtype
        )
        tolerance = 1e-5 if dtype is torch.float32 else 2e-2
        expected_logits, expected, _ = inner(rows)
        logits, weights, _ = fused(rows)
        assert weights.dtype is expected.dtype
        assert torch.allclose(logits, expected_logits, atol=tolerance, rtol=tolerance)
        assert torch.allclose(weights.sum(-1), expected.sum(-1), atol=5 * tolerance)
        assert [part.shape for part in fused(rows[None])] == [part.shape for part in inner(rows)]
    assert begun.times == already + 6


@torch.no_grad()
@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe"])
def test_a_gate_of_another_form_stays(family: str) -> None:
    assert fused_gate(gate_of(family, torch.float32), torch.float32, Begun(), always=False) is None


class Clamped(torch.nn.Module):
    """Mixtral's gate, but for large logits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(
            torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
        )

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = torch.nn.functional.linear(rows, self.weight)
        weights, indices = logits.clamp(-50, 50).softmax(-1).topk(2)
        return logits, weights / weights.sum(-1, keepdim=True), indices


@torch.no_grad()
def test_a_gate_that_does_something_more_to_large_values_stays() -> None:
    assert fused_gate(Clamped(), torch.float32, Begun(), always=False) is None


@torch.no_grad()
def test_a_plain_layer_and_a_gate_of_another_dtype_stay() -> None:
    assert fused_gate(torch.nn.Linear(32, 8), torch.float32, Begun(), always=False) is None
    assert (
        fused_gate(gate_of("mixtral", torch.float32), torch.bfloat16, Begun(), always=False) is None
    )
