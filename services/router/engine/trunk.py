"""The model without its experts, ready to run steps."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import torch

from services import kernels
from services.model.attention import AttentionProbe, plug_into
from services.model.checkpoint import Checkpoint
from services.model.digest import ContentHash
from services.model.fused_attention import fuse_attention
from services.model.fused_gate import fused_gate
from services.model.kernel_layers import use_kernels
from services.model.kv_cache import KvCache, LayerShape
from services.model.plain_calls import call_plainly
from services.model.refusals import UnusableModel, in_one_line
from services.model.tiles import Tiled, most_tile_rows, tile_linears
from services.model.trunk import build_trunk
from services.router.engine.greenlets import current_state
from services.router.engine.plain_layers import PlainLayers, read_off
from services.router.engine.plain_trial import PlainTrial
from services.router.engine.remote_experts import (
    ComputeExperts,
    RemoteExperts,
    gates,
    overlap_shared_experts,
)
from services.router.engine.step import Step, StepInputs
from services.runtime.page_advice import make_huge
from services.wire.errors import ServingError

PROBE_TOKENS = 7  # with few divisors, so that what does not fit shows
ALL_ROWS = 0  # what transformers' `logits_to_keep` means by it
LEAST_SETTLED_BYTES = 256 << 10  # smaller weights are no part of the time


@dataclass(frozen=True)
class Numerics:
    """How the trunk computes."""

    dtype: torch.dtype
    device: torch.device
    batch_invariant: bool = False


class Trunk:
    """Runs steps through transformers' own model; below `run_awaiting` only, since its experts are
    awaited.

    `model` is that one, with whatever stands in for its modules; `kv_shapes` says what each
    attention layer stores for one token, as a probing forward found it; `content_hash` names the
    weights as they stand in the checkpoint.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        numerics: Numerics,
        compute_experts: ComputeExperts,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.numerics = numerics
        content = ContentHash()
        self.model = build_trunk(
            checkpoint,
            numerics.dtype,
            numerics.device,
            lambda layer, _shell: RemoteExperts(layer, compute_experts),
            progress,
            content,
        )
        self.content_hash = content.value()
        plug_into(self.model)
        self._plug_gates(checkpoint.num_experts)
        overlap_shared_experts(self.model)
        if kernels.AVAILABLE and numerics.device.type == "cpu":
            use_kernels(self.model, always=numerics.batch_invariant)
            fuse_attention(self.model, self._run_with)
        if numerics.batch_invariant:
            tile_linears(self.model)
        self._rows_per_tile = most_tile_rows(self.model) if numerics.batch_invariant else None
        self.kv_shapes = self._probe()
        call_plainly(self.model)
        self.plain = self._in_plain_layers()

    def forward(self, step: Step, cache: KvCache) -> torch.Tensor:
        """Logits in float32 of the step's drawing sequences, [drawing, vocabulary]; those of other
        rows that are read are left with the step.
        """
        inputs = step.inputs(cache, self.numerics.device, self._rows_per_tile)
        plain = self.plain
        rows = plain.forward(inputs) if plain and plain.takes(inputs) else self.by_model(inputs)
        num_drawing, num_read = len(step.drawing), len(step.read_rows)
        logits = rows[:num_drawing].float()
        if num_read > num_drawing:
            step.scored = rows[num_drawing:num_read].float()
        step.clock.charge("dense")
        return logits

    def by_model(self, inputs: StepInputs) -> torch.Tensor:
        """Logits [read rows, vocabulary] by transformers' own forward, which any family has."""
        output = self.model(
            input_ids=inputs.token_ids[None],
            position_ids=inputs.positions[None],
            use_cache=False,
            packed=inputs.packed,
            logits_to_keep=ALL_ROWS if inputs.read_rows is None else inputs.read_rows,
        )
        rows: torch.Tensor = output.logits[0]
        return rows

    async def settle(
        self, is_wanted: Callable[[], bool], *, least_bytes: int = LEAST_SETTLED_BYTES
    ) -> None:
        """Have the weights in memory that is read at full speed, until it is not wanted any more.
        Takes a while, in which steps may run.
        """
        for weight in self.model.parameters():
            if weight.is_cpu and weight.nbytes >= least_bytes:
                await asyncio.to_thread(make_huge, weight.data_ptr(), weight.nbytes, is_wanted)

    def _in_plain_layers(self) -> PlainLayers | None:
        # Without kernels, on another device or batch-invariant no part of it is there.
        plain = read_off(self.model, _begin_gate)
        if plain is None:
            return None
        vocabulary = len(self.model.get_input_embeddings().get_parameter("weight"))
        trial = PlainTrial(vocabulary, self.kv_shapes, self.numerics.dtype)
        return plain if trial.agree(self.by_model, plain.forward) else None

    def _plug_gates(self, num_experts: int) -> None:
        numerics = self.numerics
        for block, name in gates(self.model):
            gate: torch.nn.Module = getattr(block, name)
            fused = fused_gate(gate, numerics.dtype, _begin_gate, always=numerics.batch_invariant)
            if fused is not None:
                setattr(block, name, fused)
                continue
            if numerics.batch_invariant:
                gate = Tiled(gate, num_experts)
                setattr(block, name, gate)
            gate.register_forward_pre_hook(lambda _gate, _arguments: _begin_gate())

    def _probe(self) -> dict[int, LayerShape]:
        probe = AttentionProbe()
        self._run_with(probe)
        return {layer: call.stored for layer, call in probe.calls.items()}

    def _run_with(self, probe: AttentionProbe) -> None:
        token_ids = torch.arange(PROBE_TOKENS, device=self.numerics.device)[None]
        try:
            self.model(input_ids=token_ids, position_ids=token_ids, use_cache=False, packed=probe)
        except ServingError:
            raise
        except (
            Exception
        ) as error:  # the boundary: transformers raises whatever its code meets in such values
            kind, reason = self.model.config.model_type, in_one_line(error)
            raise UnusableModel(
                f"transformers cannot run this {kind} model with its config.json: {reason}"
            ) from error


def _begin_gate(nanos_ago: int = 0) -> None:
    step = current_state()
    if isinstance(step, Step):
        step.clock.charge("dense", nanos_ago=nanos_ago)
