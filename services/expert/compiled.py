"""Experts by the compiled kernel, which computes those of all families that are served."""

from typing import Any

from services import kernels
from services.expert.bank import Bank
from services.model.expert_kind import expert_kind


def experts_of(bank: Bank) -> kernels.GatedExperts | None:
    """The bank's experts, to be called as GroupedExperts are, which round otherwise.

    None where there is no kernel for their kind, type or device.
    """
    experts: Any = bank.pool
    kind = expert_kind(experts, bank.dtype)
    if kind is None or bank.device.type != "cpu":
        return None
    weights = {name: parameter.detach() for name, parameter in experts.named_parameters()}
    into = "gate_up_proj" if kind.is_gated else "up_proj"
    biases = (weights[f"{into}_bias"], weights["down_proj_bias"]) if experts.has_bias else None
    return kernels.GatedExperts(
        weights[into],
        weights["down_proj"],
        kind,
        biases=biases,
        shifts=bank.shifts,
        is_transposed=experts.is_transposed,
    )
