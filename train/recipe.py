"""Every number of the training run in one place."""

from dataclasses import dataclass, field

from transformers import Qwen3MoeConfig

from train.tokenizer import END_ID, PAD_ID, VOCABULARY

# Share of the sampled windows by domain, in percent; the second is for the decay, when facts stick
# best.
MIX = {
    "stories": 53.0,
    "questions": 8.0,
    "austen": 10.0,
    "kjv": 5.0,
    "shakespeare": 5.0,
    "wordnet": 6.0,
    "pydoc": 5.0,
    "sqlite": 3.0,
    "postgres": 2.0,
    "sotu": 3.0,
}
FINAL_MIX = MIX | {"stories": 45.0, "questions": 18.0, "wordnet": 4.0}


@dataclass(frozen=True)
class ModelShape:
    """The sizes of the model; the tests use a smaller one."""

    vocabulary: int = VOCABULARY
    hidden: int = 192
    layers: int = 6
    heads: int = 6
    key_value_heads: int = 3
    head: int = 32
    experts: int = 16
    experts_per_token: int = 2
    expert_hidden: int = 96
    context: int = 2048

    def config(self) -> Qwen3MoeConfig:
        return Qwen3MoeConfig(  # type: ignore[call-arg]  # some fields are declared by its base class alone
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            head_dim=self.head,
            moe_intermediate_size=self.expert_hidden,
            intermediate_size=4 * self.expert_hidden,
            num_experts=self.experts,
            num_experts_per_tok=self.experts_per_token,
            norm_topk_prob=True,
            tie_word_embeddings=True,
            max_position_embeddings=self.context,
            rope_theta=10000.0,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            router_aux_loss_coef=0.01,
            bos_token_id=END_ID,
            eos_token_id=END_ID,
            pad_token_id=PAD_ID,
            initializer_range=0.02,
        )


@dataclass(frozen=True)
class Recipe:
    """How the model is trained; `steps` alone decides where the learning rate starts to fall."""

    steps: int
    shape: ModelShape = field(default_factory=ModelShape)
    mix: dict[str, float] = field(default_factory=lambda: dict(MIX))
    final_mix: dict[str, float] = field(default_factory=lambda: dict(FINAL_MIX))
    seed: int = 0
    batch: int = 8
    window: int = 256
    peak_rate: float = 3e-3
    warmup_steps: int = 100
    decay_share: float = 0.4
    weight_decay: float = 0.1
    balance: float = 0.01
    logit_size: float = 1e-4
    max_gradient: float = 1.0

    @property
    def decay_start(self) -> int:
        """The first step of the linear decay; a checkpoint up to here fits any longer run."""
        return self.steps - round(self.decay_share * self.steps)

    def mix_at(self, step: int) -> dict[str, float]:
        """The proportions of the domains in the batch of this step."""
        return self.mix if step < self.decay_start else self.final_mix

    def mean_mix(self) -> dict[str, float]:
        """Each domain's share of all windows of the run."""
        final = (self.steps - self.decay_start) / self.steps
        early, late = sum(self.mix.values()), sum(self.final_mix.values())
        return {
            domain: (1 - final) * weight / early + final * self.final_mix[domain] / late
            for domain, weight in self.mix.items()
        }
