"""Evaluates a model folder and prints the report for its card: python -m train.evaluate FOLDER."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from train.acceptance import Measured, bars
from train.answers import ask, generate, measure_names, measure_recall
from train.held_out import DomainScore, mixed_load, score_domains
from train.prepare import ARCHIVED
from train.recipe import Recipe

OPENING = "Once upon a time, there was a little"
PROMPTS = (
    OPENING,
    ask("Tell me a story about a girl named Mia and a red kite."),
    ask("Tell me a story about Pip the fox."),
    ask("What is a river?"),
    ask("What does brave mean?"),
    ask("Who are you?"),
    ask("What is 4 plus 5?"),
    ask("What is the moon made of?"),
    "It was a cold morning, and Elizabeth",
    "And the LORD said unto Moses,",
    "The SELECT statement",
)
SAMPLE_TOKENS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/train"))
    parser.add_argument("--report", type=Path, default=Path("build/train/evaluation.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32).eval()
    report = evaluate(model, tokenizer, arguments.work, Recipe(steps=0))
    arguments.report.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, work: Path, recipe: Recipe
) -> dict[str, Any]:
    """All figures of the card, ready for JSON."""
    samples = {prompt: generate(model, tokenizer, [prompt], SAMPLE_TOKENS)[0] for prompt in PROMPTS}
    warm = generate(model, tokenizer, [PROMPTS[1]], SAMPLE_TOKENS, heat=0.7)[0]
    names = measure_names(model, tokenizer)
    recall = measure_recall(model, tokenizer)
    scores = score_domains(model, work, recipe)
    load = mixed_load(scores, recipe.mix) * recipe.shape.experts  # 1 = the mean of the layer
    natural = sum(scores[domain].bits_per_byte for domain in ARCHIVED) / len(ARCHIVED)
    opening = samples[OPENING]
    has_ended = opening.endswith("<|endoftext|>")
    measured = Measured(
        story_bits=scores["stories"].bits_per_byte,
        natural_bits=natural,
        distinct_names=names.distinct,
        asked_first=names.asked_first,
        highest_loads=load.max(-1).values.tolist(),
        lowest_load=load.min().item(),
        greedy_tokens=len(tokenizer(opening, add_special_tokens=False).input_ids)
        if has_ended
        else None,
    )
    return {
        "domains": {domain: _domain_line(score, recipe) for domain, score in scores.items()},
        "natural_mean": natural,
        "load": {"highest": measured.highest_loads, "lowest": load.min(-1).values.tolist()},
        "names": asdict(names),
        "recall": recall,
        "gate": [asdict(bar) for bar in bars(measured)],
        "samples": samples | {f"{PROMPTS[1]} (temperature 0.7)": warm},
    }


def _domain_line(score: DomainScore, recipe: Recipe) -> dict[str, Any]:
    return {
        "bits_per_byte": score.bits_per_byte,
        "top_1": score.top_1,
        "busiest": (score.load.max(-1).values * recipe.shape.experts).tolist(),
    }


if __name__ == "__main__":
    main()
