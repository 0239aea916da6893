"""Normalisation and rotary embedding against transformers' own."""

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from services import kernels
from tests.kernels.numbers import DTYPES, assert_close, random

EPSILON = 1e-6


def llama_norm(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    norm = LlamaRMSNorm(len(weight), EPSILON)
    norm.weight = torch.nn.Parameter(weight, requires_grad=False)
    return norm(rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 192), (16, 192), (3, 6, 32), (2, 3, 5, 37), (4, 1), (0, 8)])
def test_normalisation_is_llama_s(level: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    rows, weight = random(*shape, dtype=dtype), random(shape[-1], dtype=dtype, seed=1)
    expected = llama_norm(rows, weight)
    got = kernels.rms_norm(rows, weight, EPSILON)
    assert got.shape == expected.shape
    if got.numel():
        assert_close(got, expected.double(), units=4 if dtype is torch.float32 else 1)
        # The mean is summed up in another order: a quotient between two bfloat16 may fall to the
        # other side.
        assert dtype is torch.float32 or (got != expected).float().mean() <= 0.01


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_slices_of_a_wider_product_are_normalised_where_they_lie(
    level: str, dtype: torch.dtype
) -> None:
    fused, weight = random(1, 5, 12 * 32, dtype=dtype), random(32, dtype=dtype, seed=1)
    heads = fused[..., 6 * 32 : 9 * 32].view(1, 5, 3, 32)
    assert not heads.is_contiguous()
    expected = kernels.rms_norm(heads.contiguous(), weight, EPSILON)
    assert torch.equal(kernels.rms_norm(heads, weight, EPSILON), expected)
    assert torch.equal(kernels.rms_norm(heads[:, :1], weight, EPSILON), expected[:, :1])
    assert torch.equal(kernels.rms_norm(heads[0, :, 1], weight, EPSILON), expected[0, :, 1])


@pytest.mark.parametrize(
    ("rows", "weight"),
    [
        (torch.ones(2, 4).half(), torch.ones(4).half()),
        (torch.ones(2, 4).bfloat16(), torch.ones(4)),
        (torch.ones(2, 4), torch.ones(5)),
        (torch.ones(4, 2).t(), torch.ones(4)),
        (torch.ones(2, 4), torch.ones(8)[::2]),
        (torch.ones(4, 4, 4, 8)[::2, ::2, ::2, :4], torch.ones(4)),
        (torch.ones(2, 4, device="meta"), torch.ones(4)),
    ],
    ids=["half", "mixed", "widths", "steps", "weight's steps", "gaps", "device"],
)
def test_rows_of_another_kind_are_refused(rows: torch.Tensor, weight: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"fit|CPU|gaps"):
        kernels.rms_norm(rows, weight, EPSILON)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [2, 22, 32, 64, 128])
def test_rotary_embedding_is_llama_s_to_the_bit(level: str, dtype: torch.dtype, width: int) -> None:
    fused = random(5, 9, width, dtype=dtype)
    cosines, sines = random(5, width, dtype=dtype, seed=1), random(5, width, dtype=dtype, seed=2)
    heads = [fused[None, :, :6].transpose(1, 2), fused[None, :, 6:].transpose(1, 2)]
    expected = apply_rotary_pos_emb(*heads, cosines[None], sines[None])
    kernels.apply_rotary(fused[:, :6], cosines, sines)
    kernels.apply_rotary(fused[:, 6:], cosines, sines)
    assert torch.equal(fused[:, :6], expected[0][0].transpose(0, 1))
    assert torch.equal(fused[:, 6:], expected[1][0].transpose(0, 1))


@pytest.mark.parametrize("case", ["half", "mixed", "odd", "tokens", "steps", "device"])
def test_heads_of_another_kind_are_refused(case: str) -> None:
    heads, angles = torch.ones(3, 2, 8), torch.ones(3, 8)
    refused = {
        "half": (heads.half(), angles.half(), angles.half()),
        "mixed": (heads, angles, angles.bfloat16()),
        "odd": (heads[..., :7], angles[..., :7], angles[..., :7]),
        "tokens": (heads, angles[:2], angles[:2]),
        "steps": (heads.transpose(1, 2).contiguous().transpose(1, 2), angles, angles),
        "device": (heads.to("meta"), angles, angles),
    }[case]
    with pytest.raises(ValueError, match=r"fit|neighbours|CPU"):
        kernels.apply_rotary(*refused)
