"""A whole attention layer in one call, for rows that each see their own keys in the cache."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from services.kernels.attention import UNLIMITED
from services.kernels.level import DTYPES, _native


@dataclass(frozen=True)
class HeadNorms:
    """The normalisation of queries and of keys: weights and what is added to the mean square.

    Weights are [width] for each head by itself, or [heads * width] for all heads together.
    """

    query: torch.Tensor
    key: torch.Tensor
    query_epsilon: float
    key_epsilon: float


@dataclass(frozen=True)
class AttentionWeights:
    """The weights of a layer.

    `joined` [(heads + 2 * key heads) * width, hidden] are those of queries, keys and values one
    after the other, `out` [hidden, heads * width] those of the projection of what attention gives;
    biases are as many, or None.
    """

    joined: torch.Tensor
    joined_bias: torch.Tensor | None
    out: torch.Tensor
    out_bias: torch.Tensor | None
    norms: HeadNorms | None
    num_heads: int
    num_key_heads: int

    @property
    def width(self) -> int:
        return len(self.joined) // (self.num_heads + 2 * self.num_key_heads)


class CachedLayer:
    """The keys and values of one layer, each [slots, key heads, width] without gaps."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        if keys.dtype not in DTYPES or keys.shape != values.shape or keys.dtype is not values.dtype:
            raise ValueError(
                f"keys {tuple(keys.shape)} of {keys.dtype} and values {tuple(values.shape)} do "
                "not fit"
            )
        if not (keys.is_cpu and values.is_cpu and keys.is_contiguous() and values.is_contiguous()):
            raise ValueError("keys and values must be on the CPU and without gaps")
        num_slots, num_key_heads, width = keys.shape
        self._kept = keys, values  # the addresses below are theirs
        num_slots, num_key_heads, width = keys.shape
        self.form = num_key_heads, width, keys.dtype
        self.described = _native.describe_cache(
            keys=keys.data_ptr(), values=values.data_ptr(), num_slots=num_slots
        )


class CachedRows:
    """The rows of a step and what is the same for each of its layers.

    Row t sees `num_keys[t]` slots from `first_slots[t]` on, with its own key, which goes to
    `slots[t]`; rows past `len(slots)` are padding. `cosines` and `sines` [rows, width] are the
    angles of its position.
    """

    def __init__(
        self,
        first_slots: npt.NDArray[np.int64],
        num_keys: npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64],
        cosines: torch.Tensor,
        sines: torch.Tensor,
    ) -> None:
        num_rows, width = cosines.shape
        if (
            sines.shape != cosines.shape
            or sines.dtype is not cosines.dtype
            or sines.stride() != cosines.stride()
        ):
            raise ValueError(
                f"cosines {tuple(cosines.shape)} and sines {tuple(sines.shape)} do not fit"
            )
        if cosines.stride(1) != 1 or len(slots) > num_rows or not (cosines.is_cpu and sines.is_cpu):
            raise ValueError(
                f"{len(slots)} slots and angles for {num_rows} rows do not fit, or are not "
                "neighbours"
            )
        self._kept = cosines, sines  # the addresses below are theirs
        self.num_rows, self.form = num_rows, (width, cosines.dtype)
        self.described = _native.describe_rows(
            first_slots=first_slots,
            num_keys=num_keys,
            slots=slots,
            num_tokens=num_rows,
            num_written=len(slots),
            cosines=cosines.data_ptr(),
            sines=sines.data_ptr(),
            angle_stride=cosines.stride(0),
        )


class AttentionLayer:
    """Does what `linear`, `rms_norm`, `apply_rotary`, writing to the cache, `attend` and `linear`
    do, in the same bits.

    Raises ValueError for weights, rows or a cache of another kind, IndexError for slots that are
    not there.
    """

    def __init__(
        self, weights: AttentionWeights, scaling: float, window: int | None = None
    ) -> None:
        _check(weights, scaling, window)
        joined, width = weights.joined, weights.width
        self._kept = weights  # the addresses below are theirs
        self.hidden, self.dtype = joined.shape[1], joined.dtype
        self._row_form = width, joined.dtype
        self._cache_form = weights.num_key_heads, width, joined.dtype
        self.described = _described(weights, scaling, window)

    def __call__(self, hidden: torch.Tensor, rows: CachedRows, cached: CachedLayer) -> torch.Tensor:
        """hidden [..., hidden] without gaps, of as many rows; returns as many."""
        self.check(hidden, rows, cached)
        out = torch.empty_like(hidden)
        _native.attention_layer(
            layer=self.described,
            rows=rows.described,
            cache=cached.described,
            hidden=hidden.data_ptr(),
            out=out.data_ptr(),
        )
        return out

    def check(self, hidden: torch.Tensor, rows: CachedRows, cached: CachedLayer) -> None:
        """Raise ValueError unless the layer can be called with these."""
        if hidden.shape[-1] != self.hidden or hidden.numel() != rows.num_rows * self.hidden:
            raise ValueError(
                f"hidden states {tuple(hidden.shape)} and {rows.num_rows} rows do not fit"
            )
        if hidden.dtype is not self.dtype or not hidden.is_contiguous() or not hidden.is_cpu:
            raise ValueError(
                "hidden states must have the dtype of the weights, be on the CPU and without gaps"
            )
        if rows.form != self._row_form or cached.form != self._cache_form:
            raise ValueError(
                f"angles of {rows.form} or a cache of {cached.form} do not fit {self._cache_form}"
            )


def _described(weights: AttentionWeights, scaling: float, window: int | None) -> object:
    norms = weights.norms
    return _native.describe_layer(
        weight=weights.joined.data_ptr(),
        bias=_address(weights.joined_bias),
        query_norm=_address(norms.query if norms else None),
        key_norm=_address(norms.key if norms else None),
        query_epsilon=norms.query_epsilon if norms else 0.0,
        key_epsilon=norms.key_epsilon if norms else 0.0,
        out_weight=weights.out.data_ptr(),
        out_bias=_address(weights.out_bias),
        norms_span_heads=norms is not None and len(norms.query) != weights.width,
        heads=(weights.num_heads, weights.num_key_heads, weights.width),
        hidden=weights.joined.shape[1],
        window=UNLIMITED if window is None else window,
        scaling=scaling,
        dtype=DTYPES[weights.joined.dtype],
    )


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _check(weights: AttentionWeights, scaling: float, window: int | None) -> None:
    joined, width, hidden = weights.joined, weights.width, weights.joined.shape[1]
    expected: list[tuple[torch.Tensor | None, tuple[int, ...]]] = [
        (joined, (width * (weights.num_heads + 2 * weights.num_key_heads), hidden)),
        (weights.joined_bias, (len(joined),)),
        (weights.out, (hidden, weights.num_heads * width)),
        (weights.out_bias, (hidden,)),
    ]
    if weights.norms is not None:
        each = len(weights.norms.query) == width
        expected += [
            (weights.norms.query, (width if each else width * weights.num_heads,)),
            (weights.norms.key, (width if each else width * weights.num_key_heads,)),
        ]
    for tensor, shape in expected:
        if tensor is not None and (tensor.shape != shape or tensor.dtype is not joined.dtype):
            raise ValueError(
                f"a weight {tuple(tensor.shape)} of {tensor.dtype} does not fit {shape} of "
                f"{joined.dtype}"
            )
        if tensor is not None and not (tensor.is_cpu and tensor.is_contiguous()):
            raise ValueError("weights must be on the CPU and without gaps")
    if joined.dtype not in DTYPES or width % 2 or weights.num_heads % weights.num_key_heads:
        raise ValueError(
            f"{weights.num_heads} heads of {width} {joined.dtype} on {weights.num_key_heads} do "
            "not fit"
        )
    if scaling <= 0 or (window is not None and window < 1):
        raise ValueError(f"scaling {scaling} and window {window} must be above 0")
