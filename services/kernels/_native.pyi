"""Addresses are those of tensors' data, strides count numbers, and dtype is 0 for float32 and 1 for
bfloat16.

What stays the same for many calls is described once, and its addresses must stay good as long.
"""

import numpy as np
import numpy.typing as npt

def linear(
    *,
    rows: int,
    num_rows: int,
    row_stride: int,
    weight: int,
    weight_stride: int,
    bias: int,
    out: int,
    num_outputs: int,
    width: int,
    dtype: int,
) -> None: ...
def describe_experts(
    *,
    gate_up: int,
    gate_up_stride: int,
    gate_up_bias: int,
    gate_up_bias_stride: int,
    down: int,
    down_stride: int,
    down_bias: int,
    down_bias_stride: int,
    shifts: int,
    num_slots: int,
    hidden: int,
    intermediate: int,
    is_transposed: bool,
    kind: tuple[int, bool, bool, float, float, float],
    dtype: int,
) -> object: ...
def gated_experts(
    *,
    experts: object,
    pair_rows: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int64],
    num_pairs: int,
    rows: int,
    num_rows: int,
    row_stride: int,
    out: int,
) -> None: ...
def rms_norm(
    *,
    rows: int,
    weight: int,
    out: int,
    epsilon: float,
    num_outer: int,
    outer_stride: int,
    num_inner: int,
    inner_stride: int,
    width: int,
    dtype: int,
) -> None: ...
def attend(
    *,
    first_slots: npt.NDArray[np.int64],
    num_keys: npt.NDArray[np.int64],
    query: int,
    query_shape: tuple[int, ...],
    query_strides: tuple[int, ...],
    keys: int,
    values: int,
    values_shape: tuple[int, ...],
    out: int,
    sinks: int,
    window: int,
    scaling: float,
    dtype: int,
) -> None: ...
def apply_rotary(
    *,
    heads: int,
    token_stride: int,
    head_stride: int,
    cosines: int,
    sines: int,
    angle_stride: int,
    num_tokens: int,
    num_heads: int,
    width: int,
    dtype: int,
) -> None: ...
def describe_layer(
    *,
    weight: int,
    bias: int,
    query_norm: int,
    key_norm: int,
    query_epsilon: float,
    key_epsilon: float,
    out_weight: int,
    out_bias: int,
    norms_span_heads: bool,
    heads: tuple[int, int, int],
    hidden: int,
    window: int,
    scaling: float,
    dtype: int,
) -> object: ...
def describe_rows(
    *,
    first_slots: npt.NDArray[np.int64],
    num_keys: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int64],
    num_tokens: int,
    num_written: int,
    cosines: int,
    sines: int,
    angle_stride: int,
) -> object: ...
def describe_cache(*, keys: int, values: int, num_slots: int) -> object: ...
def describe_between(
    *,
    attention: object,
    before: int,
    before_epsilon: float,
    after: int,
    after_epsilon: float,
    gate: int,
    gate_bias: int,
    num_experts: int,
    num_chosen: int,
    softmax_first: bool,
    renormalise: bool,
    weights_dtype: int,
) -> object: ...
def attention_layer(
    *, layer: object, rows: object, cache: object, hidden: int, out: int
) -> None: ...
def between(
    *,
    layer: object,
    rows: object,
    cache: object,
    hidden: int,
    arrived: int,
    normed: int,
    weights: int,
    indices: int,
) -> int: ...
def gate(
    *,
    rows: int,
    num_rows: int,
    row_stride: int,
    logits: int,
    weights: int,
    indices: int,
    weight: int,
    bias: int,
    num_experts: int,
    width: int,
    num_chosen: int,
    softmax_first: bool,
    renormalise: bool,
    weights_dtype: int,
    dtype: int,
) -> None: ...
def scatter(
    *,
    experts: npt.NDArray[np.int64],
    owners: npt.NDArray[np.int64],
    results: npt.NDArray[np.int64],
    num_pairs: int,
    num_experts: int,
    top_k: int,
) -> list[tuple[int, int, int, int, int]]: ...
def combine(
    *,
    replies: list[memoryview],
    positions: list[npt.NDArray[np.int64]],
    weights: int,
    out: int,
    num_tokens: int,
    top_k: int,
    width: int,
    dtype: int,
    weights_dtype: int,
    out_dtype: int,
) -> bool: ...
def draw(*, rows: int, num_rows: int, width: int, choices: int, tokens: int) -> None: ...
def levels() -> tuple[str, ...]: ...
def level() -> str: ...
def set_level(name: str, /) -> None: ...
def unused_unit() -> str | None: ...
def threads() -> int: ...
def set_threads(*, count: int, numbers_each: int) -> None: ...

# A capsule, for other modules in C; see native/interface.h.
interface: object
