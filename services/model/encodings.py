"""How weights are encoded on disk (plain, FP8 with block scales, MXFP4), and their values."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from services.model.refusals import UnusableModel
from services.model.tensor_files import TensorFiles, TensorInfo

# Small integers are not among them: they are weights quantised in some way, so that their values
# are not the weights.
PLAIN_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "BOOL"})
FP8_DTYPE = "F8_E4M3"
MXFP4_GROUP = 32  # values that share a scale
MXFP4_SCALE_BIAS = 127

# Indexed by a nibble: a sign bit, two exponent bits, one mantissa bit.
_FP4_VALUES = (
    0.0,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    6.0,
    -0.0,
    -0.5,
    -1.0,
    -1.5,
    -2.0,
    -3.0,
    -4.0,
    -6.0,
)

Block = tuple[int, int]


class Encoding(Enum):
    """How values stand in the file."""

    PLAIN = "plain"
    FP8 = "fp8"
    MXFP4 = "mxfp4"


@dataclass(frozen=True)
class StoredWeight:
    """One weight of the model as it stands in the files: under its unquantised name, with the
    tensors it is made of.
    """

    name: str
    shape: tuple[int, ...]  # once decoded
    encoding: Encoding
    tensors: tuple[str, ...]  # the values, then the scales if there are any
    block: Block = (1, 1)  # rows and columns that share an FP8 scale
    refusal: str = ""  # why it is not read, where it is not

    def read(self, files: TensorFiles, part: int | None = None) -> tuple[torch.Tensor, ...]:
        """The encoded tensors, or the `part`-th slice of each, in memory of their own."""
        return tuple(files.read(name, part) for name in self.tensors)

    def decode(self, tensors: tuple[torch.Tensor, ...], dtype: torch.dtype) -> torch.Tensor:
        """The values of what `read` gave, in `dtype`; that very tensor where nothing had to be
        converted.
        """
        if self.encoding is Encoding.FP8:
            return _decode_fp8(tensors[0], tensors[1], self.block, dtype)
        if self.encoding is Encoding.MXFP4:
            return _decode_mxfp4(tensors[0], tensors[1], dtype)
        return tensors[0].to(dtype)


def check_quantisation(quantisation: Any) -> None:
    """Raise UnusableModel for a `quantization_config` that is none of those read: FP8 with block
    scales, MXFP4.
    """
    if quantisation is None:
        return
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation
    if method == "fp8":
        _fp8_block(quantisation)
    elif method != "mxfp4":
        named = (
            f"in a way without a name ({_describe(quantisation)})"
            if method is None
            else f"by {str(method)[:100]}"
        )
        raise UnusableModel(
            f"weights quantised {named} are not read; fp8 with block scales and mxfp4 are "
            f"(quantization_config in config.json)"
        )


def stored_weights(files: TensorFiles, quantisation: dict[str, Any] | None) -> list[StoredWeight]:
    """Group the tensors of `files` into the weights that they encode.

    A tensor whose type is not read, whose scales are missing or of the wrong shape is a weight with
    a `refusal` that names it: it matters only where the model has a place for it.
    """
    infos = {info.name: info for info in files.infos}
    block = (
        _fp8_block(quantisation)
        if quantisation and quantisation.get("quant_method") == "fp8"
        else None
    )
    return list(_grouped(infos, block))


def _describe(quantisation: dict[str, Any]) -> str:
    """What a quantization_config without a method says: bitsandbytes' have load_in_4bit or
    load_in_8bit alone.
    """
    entries = [f"{name}={value}" for name, value in quantisation.items() if value is not None]
    return ", ".join(entries)[:100] or "it is empty"


def _grouped(infos: dict[str, TensorInfo], block: Block | None) -> Iterable[StoredWeight]:
    for name, info in infos.items():
        if not _is_scale(name, infos):
            try:
                yield _weight(info, infos, block)
            except UnusableModel as error:
                placed = name.removesuffix("_blocks")
                yield StoredWeight(placed, info.shape, Encoding.PLAIN, (name,), refusal=str(error))


def _weight(info: TensorInfo, infos: dict[str, TensorInfo], block: Block | None) -> StoredWeight:
    if info.dtype == FP8_DTYPE:
        return _fp8_weight(info, infos, block)
    if info.name.endswith("_blocks"):
        return _mxfp4_weight(info, infos)
    if info.dtype not in PLAIN_DTYPES:
        raise UnusableModel(f"{info.name} is stored as {info.dtype}, which is not read")
    return StoredWeight(info.name, info.shape, Encoding.PLAIN, (info.name,))


def _is_scale(name: str, infos: dict[str, TensorInfo]) -> bool:
    if name.endswith(".activation_scale"):  # for computing in FP8, which is not done here
        return True
    if name.endswith("_scale_inv"):
        return name.removesuffix("_scale_inv") in infos
    return name.endswith("_scales") and name.removesuffix("_scales") + "_blocks" in infos


def _fp8_block(quantisation: dict[str, Any]) -> Block:
    block = quantisation.get("weight_block_size")
    if not (
        isinstance(block, list)
        and len(block) == 2
        and all(type(side) is int and side > 0 for side in block)
    ):
        raise UnusableModel(
            f"fp8 weights need a weight_block_size of two sides in the configuration, not {block}"
        )
    return block[0], block[1]


def _fp8_weight(
    info: TensorInfo, infos: dict[str, TensorInfo], block: Block | None
) -> StoredWeight:
    scale = f"{info.name}_scale_inv"
    if block is None or scale not in infos or len(info.shape) < 2:
        raise UnusableModel(f"{info.name} is stored in fp8 but has no block scales ({scale})")
    *leading, rows, columns = info.shape
    grid = (*leading, math.ceil(rows / block[0]), math.ceil(columns / block[1]))
    if infos[scale].shape != grid:
        raise UnusableModel(
            f"{scale} has shape {list(infos[scale].shape)}, where {list(grid)} is needed"
        )
    return StoredWeight(info.name, info.shape, Encoding.FP8, (info.name, scale), block)


def _mxfp4_weight(info: TensorInfo, infos: dict[str, TensorInfo]) -> StoredWeight:
    name = info.name.removesuffix("_blocks")
    scale = f"{name}_scales"
    if scale not in infos:
        raise UnusableModel(f"{info.name} has no scales ({scale})")
    if (
        len(info.shape) != 4
        or info.shape[-1] != MXFP4_GROUP // 2
        or {info.dtype, infos[scale].dtype} != {"U8"}
    ):
        raise UnusableModel(
            f"{info.name} is not laid out as mxfp4: {info.dtype} {list(info.shape)}"
        )
    if infos[scale].shape != info.shape[:-1]:
        raise UnusableModel(
            f"{scale} has shape {list(infos[scale].shape)}, not {list(info.shape[:-1])}"
        )
    experts, outputs, groups, _ = info.shape
    return StoredWeight(
        name, (experts, groups * MXFP4_GROUP, outputs), Encoding.MXFP4, (info.name, scale)
    )


def _decode_fp8(
    values: torch.Tensor, scales: torch.Tensor, block: Block, dtype: torch.dtype
) -> torch.Tensor:
    rows, columns = values.shape[-2:]
    by_row = scales.float().repeat_interleave(block[0], dim=-2)[..., :rows, :]
    by_value = by_row.repeat_interleave(block[1], dim=-1)[..., :columns]
    return (values.float() * by_value).to(dtype)


def _decode_mxfp4(blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[…, outputs, groups, 16] bytes and […, outputs, groups] exponents to […, inputs, outputs]
    values.
    """
    table = torch.tensor(_FP4_VALUES)
    nibbles = torch.stack((blocks & 0x0F, blocks >> 4), dim=-1).flatten(
        -2
    )  # the low one comes first
    exponents = scales.to(torch.int32) - MXFP4_SCALE_BIAS
    values = torch.ldexp(table[nibbles.int()], exponents[..., None])
    return values.flatten(-2).transpose(-1, -2).to(dtype)
