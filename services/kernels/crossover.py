"""From how many rows on torch's own products are as fast as the kernels: the one place that says
so.

Torch rearranges the weights on every call, which few rows do not repay. Measured with one thread on
an x86 processor that has all levels but the matrix unit's, for AVX2 with torch held to it too;
without bfloat16 instructions torch is slow at any number. With a matrix unit torch uses it too; a
trial of such a kernel was as fast as torch between 128 and 256 rows, and the numbers here are
cautious ones: this kernel was not measured.
"""

import torch

from services.kernels.level import AVAILABLE, EMULATED, level

# float32 and bfloat16
_LINEAR_ROWS = {
    "amx_bf16": (48, 128),
    "avx512_bf16": (48, 32),
    "avx512": (48, 16),
    "avx2": (8, 64),
    "portable": (2, 8),
    EMULATED: (2, 8),
}
_EXPERT_PAIRS = {
    "amx_bf16": (256, 256),
    "avx512_bf16": (256, 256),
    "avx512": (256, 512),
    "avx2": (64, 512),
    "portable": (8, 16),
    EMULATED: (8, 16),
}
_CHUNK_KEYS = {
    "amx_bf16": (1024, 2048),
    "avx512_bf16": (1024, 2048),
    "avx512": (1024, 1024),
    "avx2": (512, 512),
    "portable": (0, 0),
    EMULATED: (0, 0),
}


def linear_pays(num_rows: int, weight: torch.Tensor) -> bool:
    """Whether `linear` takes such weights and is faster than torch's with so many rows."""
    return weight.is_cpu and num_rows <= most_linear_rows(weight) > 0


def most_linear_rows(weight: torch.Tensor) -> int:
    """With how many rows `linear` is still faster than torch's. Without kernels 0."""
    return _most(_LINEAR_ROWS, weight.dtype) if AVAILABLE else 0


def most_layer_rows(weight: torch.Tensor) -> int:
    """With how many rows a layer in one call, `Gate` or `AttentionLayer`, is still faster than
    torch's operations.

    What the other calls cost pays for as many rows again. Without kernels 0.
    """
    return 2 * _most(_LINEAR_ROWS, weight.dtype) if AVAILABLE else 0


def most_pairs_per_expert(dtype: torch.dtype) -> int:
    """With how many pairs for each active expert `GatedExperts` of this dtype are still faster than
    torch.

    It is nearly the same for every kind, transposed or not. Of a dtype that they do not take, and
    without kernels, 0.
    """
    return _most(_EXPERT_PAIRS, dtype) if AVAILABLE else 0


def most_chunk_keys(dtype: torch.dtype) -> int:
    """Up to how many keys of a prompt its tokens are attended faster by `attend` than by torch.

    Of a dtype that it does not take, and without kernels, 0.
    """
    return _most(_CHUNK_KEYS, dtype) if AVAILABLE else 0


def _most(by_level: dict[str, tuple[int, int]], dtype: torch.dtype) -> int:
    if dtype is torch.bfloat16:
        return by_level[level()][1]
    return by_level[level()][0] if dtype is torch.float32 else 0
