"""Which models cannot be served, told from their configuration and structure rather than from a
list of names.
"""

import re

from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from services.metadata.refusals import UnusableModel as UnusableModel
from services.metadata.refusals import in_one_line as in_one_line
from services.model.transformers_internals import can_replace_attention, is_stateful

ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})
# What `architectures` calls a model that continues text; others have a head of another use in its
# place, or none.
LANGUAGE_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
OTHER_HEAD = re.compile(r"For[A-Z]\w*$|Model$|Reward|Embedding")


def refuse_configuration(config: PreTrainedConfig) -> None:
    """Raise UnusableModel for what the configuration alone rules out."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UnusableModel(f"{kind} is an encoder-decoder model; only decoders are served")
    if config.sub_configs:
        parts = ", ".join(sorted(config.sub_configs))
        raise UnusableModel(
            f"{kind} is a model of several parts ({parts}); only plain language models are served"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnusableModel(f"{kind} is not a causal language model")
    _refuse_head(config)
    for layer, layer_type in enumerate(getattr(config, "layer_types", None) or ()):
        if layer_type not in ATTENTION_LAYERS:
            raise UnusableModel(
                f"layer {layer} of {kind} is of type {layer_type}, whose state is no plain cache "
                "of keys and values; "
                f"only layers of full or sliding attention are served"
            )


def _refuse_head(config: PreTrainedConfig) -> None:
    stated = config.architectures if isinstance(config.architectures, list) else []
    names = [name for name in stated if isinstance(name, str)]
    others = [
        name for name in names if not name.endswith(LANGUAGE_HEADS) and OTHER_HEAD.search(name)
    ]
    if others and len(others) == len(names):
        raise UnusableModel(
            f"config.json: architectures is {others[0]}, a model whose head does not continue "
            "text; "
            f"only causal language models are served"
        )


def refuse_structure(model: PreTrainedModel) -> None:
    """Raise UnusableModel for what only the built modules show; `model` may be on the
    meta device.
    """
    kind = model.config.model_type
    if is_stateful(model):
        raise UnusableModel(
            f"{kind} keeps a state of its own besides the keys and values of attention"
        )
    if not can_replace_attention(model):
        raise UnusableModel(f"the attention of {kind} cannot be replaced by one with a paged cache")


def refuse_experts(layer: int, experts: nn.Module, num_experts: int) -> None:
    """Raise UnusableModel when an `*Experts` module cannot be cut along its first dimension into
    single experts.
    """
    for name, parameter in experts.named_parameters():
        if "." in name or parameter.shape[0] != num_experts:
            raise UnusableModel(
                f"layer {layer}: {name} of {type(experts).__name__} is shared by its experts"
            )


def missing_experts(model: PreTrainedModel) -> UnusableModel:
    """The refusal of a model in which no expert module was found."""
    kind = model.config.model_type
    for module in model.modules():
        if "Experts" in type(module).__name__:
            return UnusableModel(
                f"the experts of {kind} ({type(module).__name__}) cannot be run apart from the "
                "model"
            )
    return UnusableModel(
        f"{kind} is not a Mixture-of-Experts model: none of its layers has experts"
    )
