"""The models that are measured: their shapes, and how many bytes each part of them has."""

from dataclasses import dataclass

from bench.rig.checkpoints import Shape

BYTES_PER_VALUE = 2  # bfloat16
NUM_HEADS = 16


@dataclass(frozen=True)
class Size:
    """A model in OLMoE's layout with weights in bfloat16."""

    name: str
    shape: Shape
    vocab_size: int

    @property
    def num_experts(self) -> int:
        """Experts of all layers."""
        return self.shape.num_hidden_layers * self.shape.num_experts

    @property
    def expert_bytes(self) -> int:
        """Weights of one expert: gate, up and down."""
        return 3 * self.shape.hidden_size * self.shape.intermediate_size * BYTES_PER_VALUE

    @property
    def trunk_step_bytes(self) -> int:
        """Weights that a step reads however many experts are active: attention, norms, gates and
        head. Of the embedding it reads a row for each token, which counts as nothing.
        """
        hidden, shape = self.shape.hidden_size, self.shape
        layer = 4 * hidden * hidden + shape.num_experts * hidden + 4 * hidden
        head = self.vocab_size * hidden + hidden
        return (shape.num_hidden_layers * layer + head) * BYTES_PER_VALUE

    @property
    def total_bytes(self) -> int:
        """All weights, as they stand in the files."""
        embedding = self.vocab_size * self.shape.hidden_size * BYTES_PER_VALUE
        return self.num_experts * self.expert_bytes + self.trunk_step_bytes + embedding

    def __str__(self) -> str:
        return f"{self.name} ({self.total_bytes / 1e9:.1f} GB)"


OLMOE_7B = Size("OLMoE-1B-7B's shape", Shape(2048, 16, 64, 8, 1024), 50_304)
OLMOE_3B = Size("seven layers of it", Shape(2048, 7, 64, 8, 1024), 50_304)
QUICK = Size("two narrower layers of it", Shape(2048, 2, 32, 8, 1024), 16_384)
