"""Rewrites tiny checkpoints in the quantised formats that are published: MXFP4 experts, FP8 with
block scales.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FP4 = torch.tensor(
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]
)
FP8_BLOCK = (16, 16)
FP8_MAX = 448.0

Tensors = dict[str, torch.Tensor]


def quantise_experts_to_mxfp4(directory: Path) -> None:
    """Rewrite the experts of a gpt_oss checkpoint as it is published: blocks of nibbles and their
    exponents.
    """
    tensors = load_file(directory / "model.safetensors")
    for name in [
        name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))
    ]:
        blocks, scales = mxfp4(tensors.pop(name))
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    _rewrite(directory, tensors, {"quant_method": "mxfp4"})


def quantise_to_fp8(directory: Path) -> None:
    """Rewrite the projections of a checkpoint, experts' and others', as DeepSeek-V3 is
    published.
    """
    tensors = load_file(directory / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        values, scales = fp8(tensors[name])
        tensors |= {name: values, f"{name}_scale_inv": scales}
    _rewrite(
        directory,
        tensors,
        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(FP8_BLOCK)},
    )


def mxfp4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[experts, inputs, outputs] -> bytes [experts, outputs, groups, 16] and exponents [experts,
    outputs, groups].
    """
    groups = weight.float().transpose(1, 2).unflatten(-1, (-1, 32))
    exponents = (
        groups.abs().amax(-1).log2().floor() - 2
    )  # the largest magnitude is 6 = 1.5 * 2 ** 2
    codes = (
        (groups[..., None] / exponents.exp2()[..., None, None] - FP4)
        .abs()
        .argmin(-1)
        .to(torch.uint8)
    )
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponents + 127).to(torch.uint8)


def fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, columns] -> e4m3 of the same shape and the scale of each block, the last blocks cut at
    the edges.
    """
    rows, columns = (
        math.ceil(size / side) for size, side in zip(weight.shape, FP8_BLOCK, strict=True)
    )
    values, scales = (
        torch.empty(weight.shape, dtype=torch.float8_e4m3fn),
        torch.empty(rows, columns),
    )
    for row, column, block in blocks_of(weight.float()):
        scales[row, column] = block.abs().max() / FP8_MAX
        view = values[row * FP8_BLOCK[0] :, column * FP8_BLOCK[1] :][
            : block.shape[0], : block.shape[1]
        ]
        view.copy_(block / scales[row, column])
    return values, scales


def blocks_of(matrix: torch.Tensor) -> list[tuple[int, int, torch.Tensor]]:
    """Each FP8 block of a matrix, as a view, with its place in the grid of blocks."""
    return [
        (row, column, block)
        for row, band in enumerate(matrix.split(FP8_BLOCK[0], dim=0))
        for column, block in enumerate(band.split(FP8_BLOCK[1], dim=1))
    ]


def _rewrite(directory: Path, tensors: Tensors, quantisation: dict[str, Any]) -> None:
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        directory / "model.safetensors",
    )
    config = directory / "config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "quantization_config": quantisation})
    )
