"""Attention of a packed batch over the KV cache, all sequences in one call."""

import numpy as np
import numpy.typing as npt
import torch

from services.kernels.level import DTYPES, _native

# With no window a token sees all its keys.
UNLIMITED = 1 << 62


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    first_slots: npt.NDArray[np.int64],
    num_keys: npt.NDArray[np.int64],
    scaling: float,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each token over its own keys: [tokens, heads, value width].

    `query` [tokens, heads, width], tokens and heads may be apart; `keys` [slots, key heads, width]
    and `values` [slots, key heads, value width] of one layer. Token t sees `num_keys[t]` slots from
    `first_slots[t]` on, of these the last `window`; without keys it gets zeros. `sinks` [heads] are
    logits that take part in the softmax and have no value. Float32 or bfloat16 on the CPU, computed
    in float32; without sinks, weights are rounded where torch's fused attention rounds them. A
    head's bits depend on its query, its keys and values, and the level alone: not on the batch.
    Raises ValueError for tensors of another kind, IndexError for slots that are not there.
    """
    dtype = query.dtype
    num_tokens, num_heads, _ = query_shape = query.shape
    _, _, step = query_strides = query.stride()
    _, _, value_width = values_shape = values.shape
    _check(query, keys, values)
    if step != 1 or scaling <= 0 or (window is not None and window < 1):
        raise ValueError(
            f"scaling {scaling} and window {window} must be above 0, and heads without gaps"
        )
    logits = None if sinks is None else _as_logits(sinks, num_heads)
    out = query.new_empty(num_tokens, num_heads, value_width)
    _native.attend(
        first_slots=first_slots,
        num_keys=num_keys,
        query=query.data_ptr(),
        query_shape=query_shape,
        query_strides=query_strides,
        keys=keys.data_ptr(),
        values=values.data_ptr(),
        values_shape=values_shape,
        out=out.data_ptr(),
        sinks=0 if logits is None else logits.data_ptr(),
        window=UNLIMITED if window is None else window,
        scaling=scaling,
        dtype=DTYPES[dtype],
    )
    return out


def _check(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
    if (
        query.dtype not in DTYPES
        or keys.dtype is not query.dtype
        or values.dtype is not query.dtype
    ):
        raise ValueError(
            f"query of {query.dtype}, keys of {keys.dtype} and values of {values.dtype} do not fit"
        )
    num_slots, num_key_heads, _ = values.shape
    if keys.shape != (num_slots, num_key_heads, query.shape[2]) or query.shape[1] % num_key_heads:
        raise ValueError(
            f"{tuple(query.shape)}, {tuple(keys.shape)} and {tuple(values.shape)} do not fit"
        )
    if not (
        keys.is_contiguous()
        and values.is_contiguous()
        and query.is_cpu
        and keys.is_cpu
        and values.is_cpu
    ):
        raise ValueError("query, keys and values must be on the CPU, and the cache without gaps")


def _as_logits(sinks: torch.Tensor, num_heads: int) -> torch.Tensor:
    if sinks.numel() != num_heads:
        raise ValueError(f"{sinks.numel()} sinks do not fit {num_heads} heads")
    return sinks.to(torch.float32).reshape(-1).contiguous()
