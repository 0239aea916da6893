"""Compiled kernels for the shapes that decoding has: few rows, tensors on the CPU, one thread.

They are written in C and built at install time where there is a compiler; without them AVAILABLE is false and callers
use torch. Each takes and gives torch tensors.
"""

from services.kernels.attention import attend
from services.kernels.crossover import gated_experts_pay, linear_pays
from services.kernels.experts import gated_experts
from services.kernels.level import AVAILABLE, LEVELS, level, set_level
from services.kernels.linear import linear
from services.kernels.normalisation import rms_norm
from services.kernels.rotary import apply_rotary

__all__ = [
    "AVAILABLE",
    "LEVELS",
    "apply_rotary",
    "attend",
    "gated_experts",
    "gated_experts_pay",
    "level",
    "linear",
    "linear_pays",
    "rms_norm",
    "set_level",
]
