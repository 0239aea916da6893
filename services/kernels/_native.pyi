"""Addresses are those of tensors' data, strides count numbers, and dtype is 0 for float32 and 1 for bfloat16."""

import numpy as np
import numpy.typing as npt

def linear(
    rows: int,
    weight: int,
    bias: int,
    out: int,
    num_rows: int,
    num_outputs: int,
    width: int,
    row_stride: int,
    weight_stride: int,
    dtype: int,
    /,
) -> None: ...
def gated_experts(
    pair_rows: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int64],
    rows: int,
    num_rows: int,
    row_stride: int,
    gate_up: int,
    gate_up_stride: int,
    down: int,
    down_stride: int,
    out: int,
    num_pairs: int,
    num_slots: int,
    hidden: int,
    intermediate: int,
    dtype: int,
    /,
) -> None: ...
def rms_norm(
    epsilon: float,
    rows: int,
    weight: int,
    out: int,
    num_outer: int,
    outer_stride: int,
    num_inner: int,
    inner_stride: int,
    width: int,
    dtype: int,
    /,
) -> None: ...
def attend(
    first_slots: npt.NDArray[np.int64],
    num_keys: npt.NDArray[np.int64],
    scaling: float,
    query: int,
    query_token_stride: int,
    query_head_stride: int,
    keys: int,
    values: int,
    out: int,
    sinks: int,
    num_tokens: int,
    num_heads: int,
    num_key_heads: int,
    num_slots: int,
    key_width: int,
    value_width: int,
    window: int,
    dtype: int,
    /,
) -> None: ...
def apply_rotary(
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
    /,
) -> None: ...
def levels() -> tuple[str, ...]: ...
def level() -> str: ...
def set_level(name: str, /) -> None: ...
