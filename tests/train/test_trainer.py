"""Training itself, on a model small enough for a test."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train import attention, experts
from train.cross_entropy import cross_entropy
from train.recipe import ModelShape, Recipe
from train.trainer import Trainer, new_model
from train.windows import Windows

SHAPE = ModelShape(
    vocabulary=64,
    hidden=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    head=16,
    experts=4,
    expert_hidden=16,
    context=64,
)
RECIPE = Recipe(
    steps=12,
    shape=SHAPE,
    mix={"left": 1.0, "right": 2.0},
    final_mix={"left": 2.0, "right": 1.0},
    batch=2,
    window=16,
    warmup_steps=2,
)


def trainer(recipe: Recipe) -> Trainer:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    streams = {domain: random.integers(0, 64, 500).astype(np.uint16) for domain in recipe.mix}
    return Trainer(recipe, Windows(streams, window=recipe.window, batch=recipe.batch, seed=0))


def finish(run: Trainer) -> list[torch.Tensor]:
    while run.step < run.recipe.steps:
        run.take_step()
    return list(run.model.parameters())


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = finish(trainer(RECIPE))
    first = trainer(replace(RECIPE, steps=8))
    for _ in range(5):
        first.take_step()
    first.save(tmp_path / "step.pt")
    second = trainer(RECIPE)
    second.restore(tmp_path / "step.pt")
    assert second.step == 5
    assert same(finish(second), unbroken)


def test_training_lowers_the_loss() -> None:
    run = trainer(replace(RECIPE, steps=60, mix={"left": 1.0}, final_mix={"left": 1.0}))
    losses = [run.take_step().loss for _ in range(60)]
    assert sum(losses[-5:]) < sum(losses[:5])


def gradients(model: Any, tokens: torch.Tensor, *, is_plain: bool) -> list[torch.Tensor]:
    model.zero_grad()
    hidden = model.model(tokens, use_cache=False).last_hidden_state.flatten(0, 1)
    targets = tokens.roll(-1, 1).flatten()
    if is_plain:
        loss = torch.nn.functional.cross_entropy(hidden @ model.lm_head.weight.T, targets)
    else:
        loss = cross_entropy(hidden, model.lm_head.weight, targets)
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_the_fast_operations_have_the_gradients_of_the_plain_ones() -> None:
    model = new_model(RECIPE)
    tokens = torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(0))
    fast = gradients(model, tokens, is_plain=False)
    assert model.config._attn_implementation == attention.NAME
    assert model.config._experts_implementation == experts.NAME
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    for quick, plain in zip(fast, gradients(model, tokens, is_plain=True), strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-6)
