"""Modules that are called without what surrounds them give the same results, and keep the hooks
that they had.
"""

import pytest
import torch

from services.model.plain_calls import PlainList, call_plainly
from tests.checkpoints import SERVED_FAMILIES, VOCAB_SIZE, tiny_model

# More than the 64 positions after which rotary embeddings of some families change.
TOKENS = torch.randint(0, VOCAB_SIZE, (1, 80), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS, use_cache=False).logits


@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_a_model_computes_the_same_bits(family: str) -> None:
    model = tiny_model(family).eval()
    expected = logits(model)
    call_plainly(model)
    assert any(isinstance(module, PlainList) for module in model.modules())
    assert torch.equal(logits(model), expected)


def test_nothing_collects_outputs_that_nobody_asks_for() -> None:
    model = tiny_model("qwen3_moe").eval()
    model.config.output_hidden_states = True
    assert model(input_ids=TOKENS).hidden_states is not None
    call_plainly(model)
    assert model(input_ids=TOKENS).hidden_states is None


def test_a_module_keeps_its_hooks() -> None:
    model = tiny_model("qwen3_moe").eval()
    seen: list[torch.nn.Module] = []
    gate = model.get_submodule("model.layers.1.mlp.gate")
    gate.register_forward_pre_hook(lambda module, _: seen.append(module))
    call_plainly(model)
    logits(model)
    assert seen == [gate]


def test_a_slice_of_a_plain_list_is_plain() -> None:
    first, second = torch.nn.Identity(), torch.nn.Identity()
    modules = PlainList([first, second])
    assert modules[1:] == [second]
    assert modules[0] is first
