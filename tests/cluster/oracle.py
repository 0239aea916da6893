"""Plain transformers on the same checkpoint, and the router's logits beside it."""

from collections.abc import Sequence as Sequenced
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from services.model.kv_cache import KvCache
from services.router.engine.sequence import Sequence
from services.router.engine.step import Step
from services.router.engine.trunk import Trunk


class LogitsRecord:
    """The logits of every draw by its sequence, oldest sequence first; patched around
    `Trunk.forward`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._drawn: dict[Sequence, list[torch.Tensor]] = {}
        forward = Trunk.forward

        def recording(trunk: Trunk, step: Step, cache: KvCache) -> torch.Tensor:
            logits = forward(trunk, step, cache)
            for row, sequence in zip(logits, step.drawing, strict=True):
                self._drawn.setdefault(sequence, []).append(row.clone())
            return logits

        monkeypatch.setattr(Trunk, "forward", recording)

    def of_prompt(self, prompt: tuple[int, ...]) -> torch.Tensor:
        """Logits of the latest sequence with this prompt, [drawn, vocabulary]."""
        return self.all_of_prompt(prompt)[-1]

    def all_of_prompt(self, prompt: tuple[int, ...]) -> list[torch.Tensor]:
        """The same of every sequence with this prompt, oldest first."""
        return [
            torch.stack(rows)
            for sequence, rows in self._drawn.items()
            if sequence.order.prompt == prompt
        ]


@dataclass(frozen=True)
class Comparison:
    """One generation against the reference, teacher-forced over the same tokens."""

    largest_difference: float
    mean_difference: float
    num_tokens: int
    num_other_tokens: int
    unexcused: list[str]


class Oracle:
    """The whole model in one process, with transformers' own defaults."""

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype
        ).eval()
        self._top_k = self._model.config.num_experts_per_tok
        self._gate_logits: list[torch.Tensor] = []  # of the latest forward, by layer
        for block in self._model.modules():
            if hasattr(block, "experts"):
                gate = getattr(block, "gate", None) or block.router
                gate.register_forward_hook(
                    lambda _module, _inputs, output: self._gate_logits.append(output[0])
                )

    @torch.no_grad()
    def compare(
        self, prompt: tuple[int, ...], tokens: list[int], logits: torch.Tensor
    ) -> Comparison:
        """`logits` [tokens, vocabulary] and `tokens` against the reference's.

        A token may differ only where the reference's own best lies no further above it than the
        reference's own noise between batch shapes reaches, or where a gate on the way chose by less
        than its own noise.
        """
        ids = torch.tensor([[*prompt, *tokens[:-1]]])
        first = len(prompt) - 1
        whole, gates = self._in_chunks(ids, ids.shape[1])
        ours, best = whole[first:], whole[first:].argmax(-1).tolist()
        others = [position for position, token in enumerate(tokens) if token != best[position]]
        unexcused = []
        if others:
            noise, tossed = self._noise(ids, whole, gates)
            for position in others:
                gap = float(ours[position].max() - ours[position, tokens[position]])
                if gap > 2 * noise and not tossed[: first + position + 1].any():
                    unexcused.append(
                        f"{len(prompt)} + {position}: gap {gap:.2e}, noise {noise:.2e}"
                    )
        differences = (ours - logits).abs()
        return Comparison(
            float(differences.max()), float(differences.mean()), len(tokens), len(others), unexcused
        )

    @torch.no_grad()
    def logprobs(self, tokens: Sequenced[int]) -> torch.Tensor:
        """The logarithms of the probabilities of every token after each of these, in
        float64.
        """
        logits = self._model(torch.tensor([tokens])).logits[0]
        return torch.log_softmax(logits.double(), -1)

    def _noise(
        self, ids: torch.Tensor, whole: torch.Tensor, gates: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        """How far the reference is from itself, and at which positions a gate's choice lies within
        that.
        """
        shapes = [self._in_chunks(ids, size) for size in (1, 5, ids.shape[1] // 2 + 1)]
        logits_noise = max(float((logits - whole).abs().max()) for logits, _ in shapes)
        gate_noise = torch.stack([(other - gates).abs().amax((1, 2)) for _, other in shapes]).amax(
            0
        )  # [layers]
        ordered = gates.sort(dim=-1, descending=True).values
        gaps = ordered[..., self._top_k - 1] - ordered[..., self._top_k]  # [layers, tokens]
        return logits_noise, (gaps <= 2 * gate_noise[:, None]).any(0)

    def _in_chunks(self, ids: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [tokens, vocabulary] and gate logits [layers, tokens, experts] of a forward in
        chunks.
        """
        rows, gates, cache = [], [], None
        for chunk in ids.split(size, dim=1):
            self._gate_logits.clear()
            output = self._model(chunk, past_key_values=cache, use_cache=True)
            rows.append(output.logits[0].float())
            gates.append(
                torch.stack(
                    [logits.reshape(chunk.shape[1], -1).float() for logits in self._gate_logits]
                )
            )
            cache = output.past_key_values
        return torch.cat(rows), torch.cat(gates, dim=1)


def prompts_of(lengths: list[int], vocab_size: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Random prompts of these lengths, the special tokens left out."""
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randint(4, vocab_size, (length,), generator=generator).tolist())
        for length in lengths
    ]
