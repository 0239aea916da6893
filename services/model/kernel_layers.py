"""Layers of transformers' models by our compiled kernels: the same functions, without torch's cost
for few rows.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F

from services import kernels

# Another kind of normalisation than Llama's differs on many of so many numbers.
PROBE_ROWS = 8

Layer = TypeVar("Layer", bound=torch.nn.Module)


def linear(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, always: bool
) -> torch.Tensor:
    """The linear layer of `rows` [n, inputs], by the kernel `always` or where it is the faster: [n,
    outputs].
    """
    if always or kernels.linear_pays(len(rows), weight):
        return kernels.linear(rows, weight, bias)
    return F.linear(rows, weight, bias)


class KernelLinear(torch.nn.Module):
    """A linear layer [..., inputs] -> [..., outputs] with the weights of `inner`.

    With `always` every number of rows goes through the kernel, so that a row's bits depend on the
    row alone; else only as many as it is the faster for.
    """

    def __init__(self, inner: torch.nn.Linear, *, always: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = inner.in_features, inner.out_features
        self.weight, self.bias = inner.weight, inner.bias
        self.always = always

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        output = linear(
            rows.reshape(-1, self.in_features), self.weight, self.bias, always=self.always
        )
        return output.view(*rows.shape[:-1], self.out_features)


def called_directly(kind: type[Layer]) -> type[Layer]:
    """Make calling a module of the class the same as calling its `forward`: hooks are not looked
    for.

    Torch does so in two functions more, and a layer of few rows takes little longer than they do.
    """
    kind.__call__ = kind.forward  # type: ignore[method-assign]
    return kind


@called_directly
class KernelNorm(torch.nn.Module):
    """A root mean square normalisation of Llama's kind."""

    def __init__(self, weight: torch.nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.variance_epsilon = epsilon
        self.numbers = weight.detach()  # a parameter is searched for in another function

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return kernels.rms_norm(rows, self.numbers, self.variance_epsilon)


def use_kernels(module: torch.nn.Module, *, always: bool) -> None:
    """Replace the linear layers and normalisations below `module` that kernels serve, in place.

    Weights must be loaded: which normalisation a module computes is found by trying it.
    """
    for name, child in module.named_children():
        if type(child) is torch.nn.Linear and kernels.linear_pays(1, child.weight):
            setattr(module, name, KernelLinear(child, always=always))
        elif (epsilon := _epsilon_of_plain_norm(child)) is not None:
            setattr(module, name, KernelNorm(child.get_parameter("weight"), epsilon))
        else:
            use_kernels(child, always=always)


def _epsilon_of_plain_norm(module: torch.nn.Module) -> float | None:
    """The epsilon of a module that by its parameters and by trial computes Llama's normalisation,
    else None.
    """
    epsilon: Any = getattr(module, "variance_epsilon", None)
    own = dict(module.named_parameters())
    if (
        not isinstance(epsilon, float)
        or list(own) != ["weight"]
        or next(module.children(), None) is not None
    ):
        return None
    weight = own["weight"]
    if weight.dim() != 1 or not kernels.linear_pays(1, weight):
        return None
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(PROBE_ROWS, len(weight), generator=generator)
    rows[::2] *= epsilon**0.5  # so small that epsilon shows
    rows = rows.to(weight.dtype)
    return epsilon if torch.equal(module(rows), _llama_norm(rows, weight, epsilon)) else None


def _llama_norm(rows: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    numbers = rows.to(torch.float32)
    variance = numbers.pow(2).mean(-1, keepdim=True)
    return weight * (numbers * torch.rsqrt(variance + epsilon)).to(rows.dtype)
