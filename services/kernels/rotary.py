"""Rotary position embedding in one call."""

import torch

from services.kernels.level import DTYPES, _native


def apply_rotary(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> None:
    """Turn `heads` [tokens, heads, width] in place by `cosines` and `sines` [tokens, width].

    As transformers' `apply_rotary_pos_emb` of Llama, whose coordinates are the two halves of a
    head, and rounded after each operation like it. Tokens and heads may be apart. All are float32
    or bfloat16 on the CPU. Raises ValueError otherwise.
    """
    dtype = heads.dtype
    num_tokens, num_heads, width = heads.shape
    if dtype not in DTYPES or cosines.dtype is not dtype or sines.dtype is not dtype:
        raise ValueError(
            f"heads of {dtype}, cosines of {cosines.dtype} and sines of {sines.dtype} do not fit"
        )
    if width % 2 or cosines.shape != (num_tokens, width) or sines.shape != (num_tokens, width):
        raise ValueError(
            f"{tuple(heads.shape)}, {tuple(cosines.shape)} and {tuple(sines.shape)} do not fit"
        )
    if heads.stride(2) != 1 or cosines.stride(1) != 1 or sines.stride() != cosines.stride():
        raise ValueError("the numbers of a head, and of its angles, must be neighbours")
    if not (heads.is_cpu and cosines.is_cpu and sines.is_cpu):
        raise ValueError("heads, cosines and sines must be on the CPU")
    _native.apply_rotary(
        heads=heads.data_ptr(),
        token_stride=heads.stride(0),
        head_stride=heads.stride(1),
        cosines=cosines.data_ptr(),
        sines=sines.data_ptr(),
        angle_stride=cosines.stride(0),
        num_tokens=num_tokens,
        num_heads=num_heads,
        width=width,
        dtype=DTYPES[dtype],
    )
