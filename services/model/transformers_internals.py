"""What transformers does not promise to keep: each name with its reason, and used here alone.

`tests/model/test_internals.py` says at once when one of them is gone.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Concatenate as Concatenate
from transformers.core_model_loading import MergeModulelist as MergeModulelist
from transformers.core_model_loading import WeightConverter as WeightConverter
from transformers.core_model_loading import WeightRenaming as WeightRenaming
from transformers.core_model_loading import rename_source_key


def patterns_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> list[str]:
    """Names of weights, with `*` for any text, that the family keeps in float32 when the rest is
    in `dtype`. Only `from_pretrained` asks for them, which loads experts too.
    """
    return list(model._get_dtype_plan(dtype))


def initialise(model: PreTrainedModel, module: nn.Module) -> None:
    """Compute what a module of the model has in no checkpoint, such as rotary frequencies. The
    public `init_weights` draws random weights for the whole model.
    """
    model._init_weights(module)


def is_stateful(model: PreTrainedModel) -> bool:
    """Whether the model keeps a state beside the keys and values. No configuration says it."""
    return bool(model._is_stateful)


def can_replace_attention(model: PreTrainedModel) -> bool:
    """Whether the model calls attention through `AttentionInterface`. A model that does not ignores
    what was registered there, without a word.
    """
    return bool(model._supports_attention_backend)


def ignored_on_load(model: PreTrainedModel) -> Iterable[str]:
    """Patterns of stored tensors that the family leaves out on purpose, of which `from_pretrained`
    does not warn either.
    """
    return model._keys_to_ignore_on_load_unexpected or ()


def compute_experts_by(config: PreTrainedConfig, implementation: str) -> None:
    """Choose how modules of this configuration compute their experts. The public
    `set_experts_implementation` is a model's, and there is none around a module on its own.
    """
    config._experts_implementation = implementation


def is_experts_module(module: nn.Module) -> bool:
    """Whether it can be called apart from its block. Both attributes are there on every class that
    transformers' experts interface decorates, and on no other; the decorator leaves no public mark.
    """
    return hasattr(module, "_apply_gate") and hasattr(module, "num_experts")


def gate_of(experts: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the module does between its two products: the activation, and its product with the
    other half. It is computed for one expert here, where the module computes all.
    """
    gate: Callable[[torch.Tensor], torch.Tensor] = experts._apply_gate
    return gate


def conversions(model: PreTrainedModel) -> tuple[list[WeightRenaming], list[WeightConverter]]:
    """How the names of a checkpoint become the model's own, as `from_pretrained` has it: plain
    renamings, and weights that are put together. Nothing public tells it without loading.
    """
    transforms = get_model_conversion_mapping(model)
    return (
        [entry for entry in transforms if isinstance(entry, WeightRenaming)],
        [entry for entry in transforms if isinstance(entry, WeightConverter)],
    )


def renamed(
    name: str,
    renamings: list[WeightRenaming],
    converters: list[WeightConverter],
    prefix: str,
    state: dict[str, torch.Tensor],
) -> tuple[str, str | None]:
    """Where a stored tensor goes, and by which of a converter's sources; `prefix` and `state` are
    the model's.
    """
    return rename_source_key(name, renamings, converters, prefix, state)
