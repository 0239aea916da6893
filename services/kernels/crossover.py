"""From how many rows on torch's own products are as fast as the kernels: the one place that says
so.

Torch rearranges the weights on every call, which few rows do not repay. Measured with one thread on
an x86 processor that has all levels but the matrix unit's, for AVX2 with torch held to it too;
without bfloat16 instructions torch is slow at any number. With a matrix unit torch uses it too; a
trial of such a kernel was as fast as torch between 128 and 256 rows, and the numbers here are
cautious ones: this kernel was not measured.
"""

from typing import NamedTuple

import torch

from services.kernels.level import EMULATED, level

_ByDtype = tuple[int, int]  # float32 and bfloat16


class _Crossover(NamedTuple):
    """Of one level."""

    linear_rows: _ByDtype
    expert_pairs: _ByDtype
    chunk_keys: _ByDtype


_PORTABLE = _Crossover((2, 8), (8, 16), (0, 0))
_CROSSOVERS = {
    "amx_bf16": _Crossover((48, 128), (256, 256), (1024, 2048)),
    "avx512_bf16": _Crossover((48, 32), (256, 256), (1024, 2048)),
    "avx512": _Crossover((48, 16), (256, 512), (1024, 1024)),
    "avx2": _Crossover((8, 64), (64, 512), (512, 512)),
    "portable": _PORTABLE,
    EMULATED: _PORTABLE,
    "off": _Crossover((0, 0), (0, 0), (0, 0)),
}


def linear_pays(num_rows: int, weight: torch.Tensor) -> bool:
    """Whether `linear` takes such weights and is faster than torch's with so many rows."""
    return weight.is_cpu and num_rows <= most_linear_rows(weight) > 0


def most_linear_rows(weight: torch.Tensor) -> int:
    """With how many rows `linear` is still faster than torch's. Without kernels 0."""
    return _of(_crossover().linear_rows, weight.dtype)


def most_layer_rows(weight: torch.Tensor) -> int:
    """With how many rows a layer in one call, `Gate` or `AttentionLayer`, is still faster than
    torch's operations.

    What the other calls cost pays for as many rows again. Without kernels 0.
    """
    return 2 * most_linear_rows(weight)


def most_pairs_per_expert(dtype: torch.dtype) -> int:
    """With how many pairs for each active expert `GatedExperts` of this dtype are still faster than
    torch.

    It is nearly the same for every kind, transposed or not. Of a dtype that they do not take, and
    without kernels, 0.
    """
    return _of(_crossover().expert_pairs, dtype)


def most_chunk_keys(dtype: torch.dtype) -> int:
    """Up to how many keys of a prompt its tokens are attended faster by `attend` than by torch.

    Of a dtype that it does not take, and without kernels, 0.
    """
    return _of(_crossover().chunk_keys, dtype)


def _crossover() -> _Crossover:
    return _CROSSOVERS[level()]


def _of(most: _ByDtype, dtype: torch.dtype) -> int:
    if dtype is torch.bfloat16:
        return most[1]
    return most[0] if dtype is torch.float32 else 0
