"""A model without weights: built on the meta device to see its structure, and where checkpoint
names lead in it.
"""

import copy
import re
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from services.model.refusals import UnusableModel, in_one_line
from services.model.transformers_internals import (
    WeightConverter,
    conversions,
    is_experts_module,
    renamed,
)

_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class ExpertsModule:
    """The `*Experts` module of one layer of a skeleton."""

    layer: int
    path: str
    module: nn.Module
    num_experts: int


@dataclass(frozen=True)
class Destination:
    """Where a checkpoint's tensor goes: a name in the model's state dict, perhaps by a conversion
    with others.
    """

    name: str
    converter: WeightConverter | None
    pattern: str | None  # which of the converter's sources the tensor is


def build_skeleton(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model of `config` on the meta device: no weight is allocated.

    While it builds, the process's default dtype is `dtype`, in every thread: not for use beside
    running computations. Raises UnusableModel when transformers cannot build it.
    """
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), dtype=dtype
            )
    # the boundary: transformers raises whatever its code meets in values it does not expect
    except Exception as error:
        reason = in_one_line(error)
        raise UnusableModel(
            f"transformers cannot build this {config.model_type} model from its config.json: "
            f"{reason}"
        ) from error
    return model


def experts_modules(model: nn.Module) -> list[ExpertsModule]:
    """Every module of experts that can be called apart from its block, in the order of layers."""
    found = []
    for path, module in model.named_modules():
        if is_experts_module(module):
            layer = _LAYER.search(path)
            if layer is None:
                raise UnusableModel(f"the experts at {path} belong to no layer")
            found.append(ExpertsModule(int(layer[1]), path, module, int(module.num_experts)))
    return found


class Renames:
    """Where each tensor of a checkpoint goes in `model`, by transformers' own mapping for its
    family.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._renamings, self._converters = conversions(model)
        self._by_pattern = {
            pattern: entry for entry in self._converters for pattern in entry.source_patterns
        }
        self._prefix = model.base_model_prefix
        self._state = model.state_dict()

    def destination(self, name: str) -> Destination:
        """Where the tensor `name` goes; the name it leads to need not exist in the model."""
        own, pattern = renamed(name, self._renamings, self._converters, self._prefix, self._state)
        if own not in self._state and name in self._state:  # saved under the model's own names
            own, pattern = name, None
        return Destination(own, self._by_pattern[pattern] if pattern else None, pattern)
