"""Compiled kernels for the shapes that decoding has: few rows, tensors on the CPU.

They are written in C and built at install time where there is a compiler; without them AVAILABLE is
false and callers use torch. Each takes and gives torch tensors.
"""

from services.kernels.attention import attend
from services.kernels.attention_layer import (
    AttentionLayer,
    AttentionWeights,
    CachedLayer,
    CachedRows,
    HeadNorms,
)
from services.kernels.between import Between, Chosen, Norm
from services.kernels.combine import combine, combines
from services.kernels.crossover import (
    linear_pays,
    most_chunk_keys,
    most_layer_rows,
    most_linear_rows,
    most_pairs_per_expert,
)
from services.kernels.draw import draw
from services.kernels.experts import Activation, Biases, ExpertKind, GatedExperts
from services.kernels.gate import Choice, Gate
from services.kernels.level import AVAILABLE, EMULATED, LEVELS, level, set_level
from services.kernels.linear import linear
from services.kernels.normalisation import rms_norm
from services.kernels.rotary import apply_rotary
from services.kernels.scatter import scatter
from services.kernels.threads import set_threads, threads

__all__ = [
    "AVAILABLE",
    "Activation",
    "AttentionLayer",
    "AttentionWeights",
    "Between",
    "Biases",
    "CachedLayer",
    "CachedRows",
    "Choice",
    "Chosen",
    "EMULATED",
    "ExpertKind",
    "Gate",
    "GatedExperts",
    "HeadNorms",
    "LEVELS",
    "Norm",
    "apply_rotary",
    "attend",
    "combine",
    "combines",
    "draw",
    "level",
    "linear",
    "linear_pays",
    "most_chunk_keys",
    "most_layer_rows",
    "most_linear_rows",
    "most_pairs_per_expert",
    "rms_norm",
    "scatter",
    "set_level",
    "set_threads",
    "threads",
]
