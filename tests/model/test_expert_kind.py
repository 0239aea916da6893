"""Of which kind experts are found to be, and which are not mistaken for one."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers.models.nemotron_h.configuration_nemotron_h import NemotronHConfig
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHExperts

from services import kernels
from services.kernels import Activation, ExpertKind
from services.model.expert_kind import expert_kind
from services.model.skeleton import build_skeleton, experts_modules
from tests.checkpoints import SERVED_FAMILIES, tiny_config

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels are not built")
DTYPES = [torch.float32, torch.bfloat16]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def experts_of(family: str, **overrides: Any) -> Any:
    model = build_skeleton(tiny_config(family, **overrides), torch.bfloat16)
    return experts_modules(model)[0].module


@each_dtype
@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_every_served_family_has_a_kind(family: str, dtype: torch.dtype) -> None:
    expected = ExpertKind()
    if family == "gpt_oss":
        expected = ExpertKind(Activation.SCALED_SIGMOID, True, True, 7.0, 1.702, 1.0)
    assert expert_kind(experts_of(family), dtype) == expected


@each_dtype
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("silu", Activation.SILU),
        ("swish", Activation.SILU),
        ("gelu", Activation.GELU),
        ("gelu_pytorch_tanh", Activation.GELU_TANH),
        ("relu", Activation.RELU),
        ("relu2", Activation.RELU_SQUARED),
        ("quick_gelu", Activation.SCALED_SIGMOID),
    ],
)
def test_an_activation_is_known_by_what_it_computes(
    name: str, activation: Activation, dtype: torch.dtype
) -> None:
    kind = expert_kind(experts_of("olmoe", hidden_act=name), dtype)
    assert kind is not None
    assert (kind.activation, kind.limit, kind.offset) == (activation, math.inf, 0.0)


@each_dtype
@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "relu6", "tanh", "mish", "prelu"])
def test_other_activations_have_none(name: str, dtype: torch.dtype) -> None:
    assert expert_kind(experts_of("olmoe", hidden_act=name), dtype) is None


@each_dtype
def test_limits_and_scales_are_the_model_s_own(dtype: torch.dtype) -> None:
    kind = expert_kind(experts_of("gpt_oss", swiglu_limit=2.5, swiglu_alpha=0.5), dtype)
    assert kind == ExpertKind(Activation.SCALED_SIGMOID, True, True, 2.5, 0.5, 1.0)


@each_dtype
def test_experts_without_a_gate_have_a_kind(dtype: torch.dtype) -> None:
    config = NemotronHConfig(hidden_size=16, n_routed_experts=2, moe_intermediate_size=8)
    kind = expert_kind(NemotronHExperts(config), dtype)
    assert kind == ExpertKind(Activation.RELU_SQUARED, is_gated=False)


@each_dtype
def test_experts_that_compute_something_else_between_have_none(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = experts_of("olmoe")

    def clamped_late(gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up.clamp(max=1000.0)  # a limit that the module does not hold

    monkeypatch.setattr(experts, "_apply_gate", clamped_late)
    assert expert_kind(experts, dtype) is None


def test_a_dtype_or_a_weight_without_a_kernel_has_none() -> None:
    experts = experts_of("olmoe")
    assert expert_kind(experts, torch.float16) is None
    experts.has_post_expert_norm = True
    assert expert_kind(experts, torch.float32) is None
    experts = experts_of("olmoe")
    experts.register_parameter("third_proj", torch.nn.Parameter(torch.ones(8, 2, 2)))
    assert expert_kind(experts, torch.float32) is None
