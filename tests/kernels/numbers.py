"""Random tensors, and how far results may be from exact ones."""

import torch

DTYPES = [torch.float32, torch.bfloat16]


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def unaligned(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers one number beyond an aligned address."""
    flat = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    moved = flat[1:].view(tensor.shape)
    moved.copy_(tensor)
    assert moved.data_ptr() % 16 != 0
    return moved


def assert_close(got: torch.Tensor, exact: torch.Tensor, *, units: float = 1) -> None:
    """`got` is `exact` (in float64) but for so many roundings of its dtype, each relative to the
    largest number.
    """
    assert got.shape == exact.shape
    allowed = units * torch.finfo(got.dtype).eps * exact.abs().max()
    worst = (got.double() - exact).abs().max()
    assert worst <= allowed, f"off by {worst:.3g}, at most {allowed:.3g} is allowed"
