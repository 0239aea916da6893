"""One training run: bf16 weights that follow fp32 masters, and everything needed to stop
and go on.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3MoeForCausalLM

from train import attention, experts
from train.cross_entropy import cross_entropy
from train.gates import GateWatch
from train.recipe import Recipe
from train.schedule import learning_rate
from train.windows import Windows


@dataclass(frozen=True)
class StepReport:
    """What one step measured."""

    loss: float
    balance: float
    gradient: float
    rate: float


class Trainer:
    """Holds model, masters, optimizer and data order; `step` counts the steps taken."""

    def __init__(self, recipe: Recipe, windows: Windows) -> None:
        self.recipe, self.windows = recipe, windows
        self.step = 0
        self.model = new_model(recipe)
        names = [name for name, _ in self.model.named_parameters()]
        self._masters = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.model.to(torch.bfloat16)  # type: ignore[arg-type]
        self._weights = list(self.model.parameters())
        self.watch = GateWatch(self.model, recipe.shape.experts)
        self._optimizer = _optimizer(names, self._masters, recipe)

    def take_step(self) -> StepReport:
        recipe = self.recipe
        rate = learning_rate(self.step, recipe)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = self.windows.draw(recipe.mix_at(self.step))
        loss = self._loss(inputs, targets)
        gates = self.watch.losses()
        (loss + recipe.balance * gates.balance + recipe.logit_size * gates.logit_size).backward()
        gradient = self._apply_gradients()
        self.step += 1
        return StepReport(loss.item(), gates.balance.item(), gradient, rate)

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        hidden = self.model.model(inputs, use_cache=False).last_hidden_state
        return cross_entropy(hidden.flatten(0, 1), self.model.lm_head.weight, targets.reshape(-1))

    def _apply_gradients(self) -> float:
        """Moves the masters, copies them to the bf16 weights, returns the gradient's norm before
        clipping.
        """
        for weight, master in zip(self._weights, self._masters, strict=True):
            assert weight.grad is not None
            master.grad = weight.grad.float()
            weight.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self._masters, self.recipe.max_gradient)
        self._optimizer.step()
        with torch.no_grad():
            for weight, master in zip(self._weights, self._masters, strict=True):
                weight.copy_(master)
        return norm.item()

    def save(self, path: Path) -> None:
        """Writes a checkpoint from which the run goes on exactly as if it had never stopped."""
        state = {
            "step": self.step,
            "masters": self._masters,
            "optimizer": self._optimizer.state_dict(),
            "windows": self.windows.state(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(path)

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint, which has to come from before the decay of this run."""
        state: dict[str, Any] = torch.load(path, weights_only=False)
        self.step = state["step"]
        with torch.no_grad():
            for weight, master, saved in zip(
                self._weights, self._masters, state["masters"], strict=True
            ):
                master.copy_(saved)
                weight.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self.windows.restore(state["windows"])


def new_model(recipe: Recipe) -> Qwen3MoeForCausalLM:
    """A freshly initialised model whose residual projections are scaled down with depth, as in
    GPT-2.
    """
    torch.manual_seed(recipe.seed)
    model = Qwen3MoeForCausalLM(recipe.shape.config())
    model.set_experts_implementation(experts.NAME)
    model.set_attn_implementation(attention.NAME)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "experts.down_proj")):
                parameter.mul_(1 / math.sqrt(2 * recipe.shape.layers))
    return model


def _optimizer(names: list[str], masters: list[torch.Tensor], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay on the matrices, but not on embeddings and gates."""
    decayed: list[torch.Tensor] = []
    plain: list[torch.Tensor] = []
    for name, master in zip(names, masters, strict=True):
        is_decayed = master.ndim >= 2 and "embed" not in name and not name.endswith("gate.weight")
        (decayed if is_decayed else plain).append(master)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.95), fused=True)
