"""A long prompt's time to the first token: the cluster's, and transformers' at its best."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.generate.transformers_load import (
    Setting,
    TransformersLoad,
    settings_for,
    transformers_running,
)
from bench.harness.progress import Stages
from bench.harness.statistics import Spread, spread_of
from bench.rig.client_load import ClientLoad
from bench.rig.prompts import text_prompts
from services.model.checkpoint import Checkpoint
from services.runtime.cores import num_cores

NUM_PROMPT_TOKENS = 512


@dataclass(frozen=True)
class FirstToken:
    """Milliseconds to the first token of one prompt at a time; transformers' by its setting."""

    ours: Sequence[float]
    theirs: Mapping[Setting, Sequence[float]] = field(default_factory=dict)

    @property
    def best(self) -> Setting:
        """Transformers' setting with the best median."""
        return min(self.theirs, key=lambda setting: spread_of(self.theirs[setting]).median)

    @property
    def ratio(self) -> Spread:
        """Ours over the median of transformers' best: the engines ran one after the other."""
        return spread_of(self.ours).scaled(1 / spread_of(self.theirs[self.best]).median)


async def first_token_ms(gateway: str, num_rounds: int, stages: Stages) -> list[float]:
    """The cluster's, after one prompt that is not counted."""
    load = ClientLoad(gateway, num_new_tokens=1)
    found: list[float] = []
    try:
        with stages.stage(f"a prompt of {NUM_PROMPT_TOKENS} tokens", num_rounds + 1):
            for prompt in text_prompts(num_rounds + 1, NUM_PROMPT_TOKENS):
                found += (await load.generate([prompt])).first_token_ms
                stages.step()
    finally:
        await load.close()
    return found[1:]


async def transformers_first_token_ms(
    model: Path, num_rounds: int, stages: Stages
) -> dict[Setting, list[float]]:
    """Transformers', in a process of its own with a thread for each core, by each setting that is
    a candidate.
    """
    checkpoint = Checkpoint.open(model)
    candidates = {each.implementation for each in settings_for(checkpoint, NUM_PROMPT_TOKENS)}
    settings = [Setting(name, num_cores()) for name in sorted(candidates)]
    async with AsyncExitStack() as stack:
        with stages.stage("loading the model with transformers"):
            running = transformers_running(model, num_new_tokens=1, num_threads=(num_cores(),))
            load = await stack.enter_async_context(running)
        num_steps = len(settings) * (num_rounds + 1)
        with stages.stage(f"a prompt of {NUM_PROMPT_TOKENS} tokens, transformers", num_steps):
            return {each: await _timed(load, each, num_rounds, stages) for each in settings}


async def _timed(
    load: TransformersLoad, setting: Setting, num_rounds: int, stages: Stages
) -> list[float]:
    found: list[float] = []
    for prompt in text_prompts(num_rounds + 1, NUM_PROMPT_TOKENS):
        found += (await load.generate(setting, [prompt])).first_token_ms
        stages.step()
    return found[1:]
