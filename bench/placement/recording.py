"""The shipped model's routing of held-out text, recorded once and kept under build/bench/."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from bench.harness.command import OUTPUT
from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.placement.text import NUM_WINDOWS, TOPICS, WINDOW, Text, held_out_texts
from bench.placement.traffic import DECODE_BATCH
from services.router.load.recording import ExpertIds, Recording, read_recording
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.wire.errors import InvalidRequest

FOLDER = OUTPUT / "routing" / f"{NUM_WINDOWS}-{WINDOW}"
WINDOWS_AT_ONCE = 8  # of the model's forward


def recordings(stages: Stages) -> list[Recording]:
    """Of each topic, a window of text to a step."""
    paths = [FOLDER / f"{topic}.npz" for topic in TOPICS]
    try:
        return [read_recording(path) for path in paths]
    except (FileNotFoundError, InvalidRequest):
        with stages.stage("reading the corpus"):
            texts = held_out_texts()
        with stages.stage("recording the shipped model's routing", len(texts)):
            return _recorded(texts, paths, stages)


def given(paths: Sequence[Path]) -> list[Recording]:
    """Recordings of a router's traffic, tokens as they came in steps of a window's; as many of
    each.

    Raises BenchFailed for what is no recording, is of different models, or does not suffice for all
    kinds of steps.
    """
    try:
        found = [read_recording(path).regrouped(WINDOW) for path in paths]
    except (OSError, InvalidRequest) as error:
        raise BenchFailed(str(error)) from None
    if len({(it.num_layers, it.num_experts) for it in found}) > 1:
        raise BenchFailed(
            "the recordings are of models with different numbers of layers or experts"
        )
    if WINDOW % len(found):
        raise BenchFailed(
            f"{len(found)} recordings do not share steps of {WINDOW} tokens; give 1, 2, 4 or 8"
        )
    least = 2 * DECODE_BATCH  # a batch of windows to plan by, and one to judge by
    fewest = min(it.num_steps for it in found) // least * least
    if not fewest:
        raise BenchFailed(
            f"every recording needs {least * WINDOW} tokens, half of them to be judged by"
        )
    return [
        replace(it.between(0, fewest), topic=it.topic or path.stem)
        for it, path in zip(found, paths, strict=True)
    ]


def _recorded(texts: Sequence[Text], paths: Sequence[Path], stages: Stages) -> list[Recording]:
    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL).eval()
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = []
    for text, path in zip(texts, paths, strict=True):
        found.append(recorded(model, text))
        found[-1].write(path)
        stages.step()
    return found


def recorded(model: PreTrainedModel, text: Text) -> Recording:
    """What the gates of transformers' model chose for a text."""
    chosen: list[list[ExpertIds]] = [[] for _ in model.model.layers]

    def note(layer: int, module: object, inputs: object, outputs: tuple[torch.Tensor, ...]) -> None:
        chosen[layer].append(
            outputs[2].numpy().astype(np.uint16)
        )  # [tokens, k], after the logits and the weights

    hooks = [
        block.mlp.gate.register_forward_hook(partial(note, layer))
        for layer, block in enumerate(model.model.layers)
    ]
    for windows in torch.from_numpy(text.tokens).split(WINDOWS_AT_ONCE):
        model.model(windows, use_cache=False)
    for hook in hooks:
        hook.remove()
    num_windows, window = text.tokens.shape
    return Recording(
        text.topic,
        model.config.num_experts,
        np.stack([np.concatenate(parts) for parts in chosen]),
        np.full(num_windows, window, dtype=np.int64),
        np.zeros(num_windows, dtype=bool),
    )
