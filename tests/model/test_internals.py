"""Each name that transformers and torch do not promise to keep is there, and is what we take it
for.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import rename_source_key

from services.model import transformers_internals as internals
from services.model.skeleton import build_skeleton, experts_modules
from services.model.torch_internals import call_instead, has_hooks
from tests.checkpoints import tiny_config, tiny_model

FLAGS = ("has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "is_concatenated")


def skeleton(family: str) -> PreTrainedModel:
    return build_skeleton(tiny_config(family), torch.bfloat16)


def experts_of(family: str) -> Any:
    return experts_modules(skeleton(family))[0].module


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (PreTrainedModel._get_dtype_plan, ["self", "dtype"]),
        (PreTrainedModel._init_weights, ["self", "module"]),
        (get_model_conversion_mapping, ["model"]),
        (
            rename_source_key,
            [
                "source_key",
                "weight_renamings",
                "weight_converters",
                "base_model_prefix",
                "meta_state_dict",
            ],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_function_takes_what_it_is_given(
    function: Callable[..., Any], parameters: list[str]
) -> None:
    taken = inspect.signature(function).parameters.values()
    assert [one.name for one in taken][: len(parameters)] == parameters
    assert all(one.default is not one.empty for one in [*taken][len(parameters) :])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_is_stateful", bool),
        ("_supports_attention_backend", bool),
        ("_keys_to_ignore_on_load_unexpected", set | list | tuple | None),
    ],
)
def test_an_attribute_of_every_model_is_of_its_kind(name: str, kind: Any) -> None:
    assert isinstance(getattr(PreTrainedModel, name), kind)
    assert isinstance(getattr(skeleton("deepseek_v3"), name), kind)


def test_the_family_says_which_weights_stay_in_float32() -> None:
    model = skeleton("deepseek_v3")
    assert internals.patterns_in_float32(model, torch.bfloat16) == ["e_score_correction_bias"]
    assert internals.patterns_in_float32(model, torch.float32) == []


def test_a_modules_buffers_are_computed_again() -> None:
    model = tiny_model("olmoe")
    rotary = model.get_submodule("model.rotary_emb")
    frequencies = rotary.get_buffer("inv_freq")
    before = frequencies.clone()
    frequencies.fill_(0)
    internals.initialise(model, rotary)
    assert torch.equal(rotary.get_buffer("inv_freq"), before)


def test_a_model_says_what_is_special_about_it() -> None:
    ordinary = skeleton("olmoe")
    assert not internals.is_stateful(ordinary)
    assert internals.can_replace_attention(ordinary)
    assert all(isinstance(pattern, str) for pattern in internals.ignored_on_load(ordinary))


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
def test_experts_are_told_from_other_modules(family: str) -> None:
    found = {
        type(module).__name__
        for module in skeleton(family).modules()
        if internals.is_experts_module(module)
    }
    assert found == {type(experts_of(family)).__name__}


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
def test_experts_say_how_they_are_stored(family: str) -> None:
    experts = experts_of(family)
    assert {type(getattr(experts, flag)) for flag in FLAGS} == {bool}
    assert isinstance(experts.num_experts, int)
    assert isinstance(experts.config, PreTrainedConfig)


def test_a_plain_gate_is_silu_times_the_other_half() -> None:
    experts = experts_of("olmoe")
    entered = torch.randn(3, 8)
    gate, up = entered.chunk(2, dim=-1)
    assert torch.equal(internals.gate_of(experts)(entered), F.silu(gate) * up)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_how_experts_are_computed_is_chosen_in_their_configuration(implementation: str) -> None:
    assert isinstance(PreTrainedConfig._experts_implementation, property)
    config = tiny_config("olmoe")
    internals.compute_experts_by(config, implementation)
    assert config._experts_implementation == implementation


def test_the_names_of_a_checkpoint_become_the_models() -> None:
    model = skeleton("olmoe")
    renamings, converters = internals.conversions(model)
    named = "model.layers.0.mlp.experts.3.up_proj.weight"
    path, pattern = internals.renamed(
        named, renamings, converters, model.base_model_prefix, model.state_dict()
    )
    assert path == "model.layers.0.mlp.experts.gate_up_proj"
    (converter,) = (one for one in converters if pattern in one.source_patterns)
    match converter.operations:
        case [internals.MergeModulelist(dim=0), internals.Concatenate(dim=1)]:
            pass
        case operations:
            pytest.fail(str(operations))


REGISTERED: dict[str, Callable[..., Any]] = {
    "_forward_hooks": nn.Module.register_forward_hook,
    "_forward_pre_hooks": nn.Module.register_forward_pre_hook,
    "_backward_hooks": nn.Module.register_full_backward_hook,
    "_backward_pre_hooks": nn.Module.register_full_backward_pre_hook,
}


@pytest.mark.parametrize("name", REGISTERED)
def test_a_hook_is_seen(name: str) -> None:
    module = nn.Identity()
    assert not has_hooks(module)
    REGISTERED[name](module, lambda *args: None)
    assert len(getattr(module, name)) == 1
    assert has_hooks(module)


def test_a_call_goes_where_it_is_sent() -> None:
    module = nn.Linear(2, 2)
    assert module._compiled_call_impl is None
    call_instead(module, lambda word: word + "!")
    assert module("called") == "called!"
