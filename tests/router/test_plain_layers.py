"""Steps of decoding go through layers of the plain shape by one call a layer, with the bits of
transformers' own forward; other models and steps go through that.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from services import kernels
from services.model.checkpoint import Checkpoint
from services.model.kv_cache import KvCache
from services.router.engine.greenlets import run_awaiting
from services.router.engine.plain_layers import read_off
from services.router.engine.plain_trial import PlainTrial
from services.router.engine.remote_experts import stand_in
from services.router.engine.scheduler import Scheduler
from services.router.engine.sequence import Order, Sequence
from services.router.engine.step import Step
from services.router.engine.trunk import Numerics, Trunk
from services.router.times.receipt import SequenceReceipt
from services.wire.sampling import Sampling
from tests.checkpoints import MAX_CONTEXT, VOCAB_SIZE, save_tiny

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels are not built")

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]
PLAIN_FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe", "granitemoe", "olmoe")
OTHER_FAMILIES = ("deepseek_v3", "gpt_oss", "glm4_moe", "phimoe", "ernie4_5_moe")


async def made_up(
    step: Step,
    layer: int,
    hidden: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    meanwhile: Callable[[], None] | None,
) -> torch.Tensor:
    """Experts that another lane overtakes, with what they give."""
    step.clock.charge("gate")
    if meanwhile is not None:
        meanwhile()
    await asyncio.sleep(0)
    step.clock.charge("wire")
    return stand_in(hidden, index, weights) + layer


class Decoding:
    """Sequences of a trunk, of several lengths, whose prompts are computed."""

    def __init__(self, trunk: Trunk, num_rows: int, seed: int = 0) -> None:
        self._trunk = trunk
        self.cache = KvCache(trunk.kv_shapes, 1 << 11, trunk.numerics.dtype, CPU)
        self._scheduler = Scheduler(
            self.cache.pool,
            max_sequences=num_rows,
            max_context=MAX_CONTEXT,
            max_batch_tokens=1 << 11,
        )
        generator = torch.Generator().manual_seed(seed)
        for number in range(num_rows):
            length = int(torch.randint(1, 60, (), generator=generator))
            prompt = torch.randint(VOCAB_SIZE, (length,), generator=generator).tolist()
            order = Order(tuple(prompt), Sampling(temperature=0.0), 30)
            self._scheduler.submit(Sequence(number, order, SequenceReceipt()))

    async def step(self) -> tuple[Step, torch.Tensor]:
        """The next step, and its logits, the likeliest of which are its tokens."""
        step = Step(0, self._scheduler.next_batch(0))
        logits = await run_awaiting(partial(self._trunk.forward, step, self.cache), step)
        step.count_computed()
        for sequence, token in zip(step.drawing, logits.argmax(-1).tolist(), strict=True):
            sequence.take(token)
        return step, logits

    async def steps(self, count: int) -> list[torch.Tensor]:
        return [(await self.step())[1] for _ in range(count)]

    @property
    def cached(self) -> list[torch.Tensor]:
        return [part for layer in self._trunk.kv_shapes for part in self.cache.of_layer(layer)]


def trunk_of(folder: Path, dtype: torch.dtype, *, batch_invariant: bool = False) -> Trunk:
    with torch.inference_mode():
        return Trunk(
            Checkpoint.open(folder), Numerics(dtype, CPU, batch_invariant=batch_invariant), made_up
        )


def by_the_model(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "plain", None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", PLAIN_FAMILIES)
def test_steps_have_the_bits_of_transformers_forward(
    family: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = trunk_of(save_tiny(family, tmp_path, dtype), dtype)
    assert trunk.plain is not None
    for num_rows in (1, 3, 16):
        plain, other = Decoding(trunk, num_rows), Decoding(trunk, num_rows)
        with torch.inference_mode():
            for one, another in zip(plain.cached, other.cached, strict=True):
                another.copy_(one.normal_())
            found = asyncio.run(plain.steps(4))
            with monkeypatch.context() as context:
                by_the_model(trunk, context)
                expected = asyncio.run(other.steps(4))
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        assert all(torch.equal(*pair) for pair in zip(plain.cached, other.cached, strict=True))


@pytest.mark.parametrize(("most_chunk_keys", "expected"), [(0, [True]), (1000, [])])
def test_only_steps_whose_rows_are_attended_by_themselves_leave_transformers_forward(
    most_chunk_keys: int, expected: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decodes, and prompts whose tokens see few keys."""
    monkeypatch.setattr(kernels, "most_chunk_keys", lambda _: most_chunk_keys)
    trunk = trunk_of(save_tiny("qwen3_moe", tmp_path), torch.float32)
    by_model: list[bool] = []
    forward = trunk.by_model

    def noted(inputs: Any) -> torch.Tensor:
        by_model.append(True)
        return forward(inputs)

    monkeypatch.setattr(trunk, "by_model", noted)
    with torch.inference_mode():
        asyncio.run(Decoding(trunk, 3).steps(4))
    assert by_model == expected


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_a_family_of_another_shape_stays_with_transformers(family: str, tmp_path: Path) -> None:
    trunk = trunk_of(save_tiny(family, tmp_path, torch.bfloat16), torch.bfloat16)
    assert trunk.plain is None
    with torch.inference_mode():
        asyncio.run(Decoding(trunk, 2).steps(2))


@pytest.mark.parametrize(
    "multiplier", ["embedding_multiplier", "residual_multiplier", "logits_scaling"]
)
def test_a_model_that_has_the_parts_and_does_something_more_is_refused(
    multiplier: str, tmp_path: Path
) -> None:
    overrides: dict[str, Any] = {multiplier: 0.75}
    folder = save_tiny("granitemoe", tmp_path, **overrides)
    trunk = trunk_of(folder, torch.float32)
    assert read_off(trunk.model, lambda _: None) is not None
    assert trunk.plain is None


def test_a_way_that_gives_the_same_logits_and_caches_other_keys_is_refused(tmp_path: Path) -> None:
    trunk = trunk_of(save_tiny("qwen3_moe", tmp_path), torch.float32)
    trial = PlainTrial(VOCAB_SIZE, trunk.kv_shapes, torch.float32)

    def careless(inputs: Any) -> torch.Tensor:
        logits = trunk.by_model(inputs)
        inputs.packed.cache.of_layer(1)[0][0] += 1
        return logits

    with torch.inference_mode():
        assert trial.agree(trunk.by_model, trunk.by_model)
        assert not trial.agree(trunk.by_model, careless)


def test_a_way_that_fails_on_a_model_is_refused(tmp_path: Path) -> None:
    trunk = trunk_of(save_tiny("qwen3_moe", tmp_path), torch.float32)
    plain = read_off(trunk.model, lambda _: None)
    assert plain is not None
    trial = PlainTrial(VOCAB_SIZE, trunk.kv_shapes, torch.float32)
    with torch.inference_mode():
        assert trial.agree(trunk.by_model, plain.forward)
        plain.rotary = lambda hidden, positions, layer_type: (hidden, positions)
        assert not trial.agree(trunk.by_model, plain.forward)


def test_a_batch_invariant_trunk_stays_with_transformers(tmp_path: Path) -> None:
    folder = save_tiny("qwen3_moe", tmp_path)
    assert trunk_of(folder, torch.float32, batch_invariant=True).plain is None


def test_two_lanes_in_turn_give_what_each_gives_alone(tmp_path: Path) -> None:
    trunk = trunk_of(save_tiny("qwen3_moe", tmp_path, torch.bfloat16), torch.bfloat16)

    async def both() -> list[list[torch.Tensor]]:
        lanes = [Decoding(trunk, 3, seed) for seed in (1, 2)]
        return await asyncio.gather(*(lane.steps(4) for lane in lanes))

    with torch.inference_mode():
        together = asyncio.run(both())
        alone = [asyncio.run(Decoding(trunk, 3, seed).steps(4)) for seed in (1, 2)]
    for one, another in zip(together, alone, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, another, strict=True))


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen2_moe"])
def test_the_parts_of_a_step_lie_without_a_gap(family: str, tmp_path: Path) -> None:
    trunk = trunk_of(save_tiny(family, tmp_path), torch.float32)
    decoding = Decoding(trunk, 3)

    async def second() -> Step:
        await decoding.step()
        return (await decoding.step())[0]

    with torch.inference_mode():
        clock = asyncio.run(second()).clock
    assert clock.parts.total() == clock.ended - clock.started
    assert min(clock.parts.dense, clock.parts.gate, clock.parts.wire) > 0
