"""Layers by our kernels compute what torch's compute, and replace nothing else."""

import pytest
import torch

from services import kernels
from services.model.kernel_layers import KernelLinear, KernelNorm, use_kernels

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels are not built")
WIDTH = 64


class Norm(torch.nn.Module):
    """Llama's normalisation, unless a subclass says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.variance_epsilon = 1e-6

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        numbers = rows.float()
        numbers = numbers * torch.rsqrt(
            numbers.pow(2).mean(-1, keepdim=True) + self.variance_epsilon
        )
        return self.weight * numbers.to(rows.dtype)


class RoundedLate(Norm):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        numbers = rows.float()
        numbers = numbers * torch.rsqrt(
            numbers.pow(2).mean(-1, keepdim=True) + self.variance_epsilon
        )
        return (self.weight * numbers).to(rows.dtype)


class AroundOne(Norm):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) + rows * 0 + super().forward(rows) / self.weight


class EpsilonOutside(Norm):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        numbers = rows.float()
        numbers = numbers / (numbers.pow(2).mean(-1, keepdim=True).sqrt() + self.variance_epsilon)
        return self.weight * numbers.to(rows.dtype)


class Scaled(torch.nn.Linear):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) * 2


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 16, 100])
def test_a_linear_layer_gives_what_torch_gives(
    num_rows: int, dtype: torch.dtype, always: bool
) -> None:
    torch.manual_seed(0)
    inner = torch.nn.Linear(WIDTH, 40).to(dtype).requires_grad_(False)
    layer, rows = KernelLinear(inner, always=always), torch.randn(1, num_rows, WIDTH).to(dtype)
    assert layer.weight is inner.weight
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    assert torch.allclose(layer(rows), inner(rows), atol=tolerance, rtol=tolerance)


def test_a_row_of_a_layer_that_is_always_the_kernels_has_the_same_bits_anywhere() -> None:
    layer = KernelLinear(torch.nn.Linear(WIDTH, 40).requires_grad_(False), always=True)
    rows = torch.randn(100, WIDTH)
    whole = layer(rows)
    assert all(torch.equal(layer(rows[place : place + 1])[0], whole[place]) for place in range(100))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_layers_and_llamas_normalisation_are_replaced(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Sequential(Norm())).to(
        dtype
    )
    model.requires_grad_(False)
    rows = torch.randn(5, WIDTH).to(dtype)
    expected = model(rows)
    use_kernels(model, always=False)
    assert [type(module) for module in model.modules()][1:] == [
        KernelLinear,
        torch.nn.Sequential,
        KernelNorm,
    ]
    assert torch.allclose(model(rows), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("kind", [RoundedLate, AroundOne, EpsilonOutside])
def test_another_normalisation_stays(kind: type[Norm]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(kind()).to(torch.bfloat16).requires_grad_(False)
    use_kernels(model, always=False)
    assert type(model[0]) is kind


def test_what_only_derives_from_a_linear_layer_and_other_dtypes_stay() -> None:
    model = torch.nn.Sequential(
        Scaled(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH).half(), Norm().half()
    )
    use_kernels(model.requires_grad_(False), always=False)
    assert [type(module) for module in model] == [Scaled, torch.nn.Linear, Norm]
