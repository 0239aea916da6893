"""Writes the model card from the evaluation: python -m train.card FOLDER --steps N."""

import argparse
import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import safe_open

from train.answers import NUM_DEFINITIONS, NUM_REQUESTS
from train.corpus import ARCHIVE
from train.held_out import MAX_WINDOWS
from train.prepare import MAX_HELD_OUT_CHARACTERS, SPLIT_SEED, STORY_SEED
from train.recipe import Recipe

TEMPLATE = Path(__file__).parent / "data" / "card.md"
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
NUM_OPEN_SAMPLES = 3
OUTPUTS = (
    "model.safetensors",
    "tokenizer.json",
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/train"))
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, required=True, help="wall time of the training run"
    )
    parser.add_argument("--machine", required=True, help="what it ran on, in words")
    parser.add_argument(
        "--conduct", default="", help="a sentence on how the run went, such as its resumptions"
    )
    arguments = parser.parse_args()
    evaluation = json.loads((arguments.work / "evaluation.json").read_text())
    recipe = Recipe(steps=arguments.steps)
    fields = _facts(recipe, arguments.folder) | _results(evaluation) | vars(arguments)
    fields["data_table"] = _data_table(recipe, arguments.work)
    fields["input_sums"] = _sums([ARCHIVE, *sorted(arguments.work.glob("*.train.bin"))])
    fields["output_sums"] = _sums([arguments.folder / name for name in OUTPUTS])
    (arguments.folder / "README.md").write_text(TEMPLATE.read_text().format_map(fields))


def _facts(recipe: Recipe, folder: Path) -> dict[str, Any]:
    weights = folder / "model.safetensors"
    parameters, idle = _num_parameters(weights, recipe)
    return {
        **asdict(recipe.shape),
        **asdict(recipe),
        "parameters": parameters / 1e6,
        "active": (parameters - idle) / 1e6,
        "megabytes": weights.stat().st_size / 1e6,
        "tokens": recipe.steps * recipe.batch * recipe.window / 1e6,
        "step_tokens": recipe.batch * recipe.window,
        "decay_steps": recipe.steps - recipe.decay_start,
        "story_seed": STORY_SEED,
        "split_seed": SPLIT_SEED,
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "max_windows": MAX_WINDOWS,
        "max_held_out_characters": MAX_HELD_OUT_CHARACTERS,
        "num_requests": NUM_REQUESTS,
        "num_definitions": NUM_DEFINITIONS,
    }


def _num_parameters(weights: Path, recipe: Recipe) -> tuple[int, float]:
    """All parameters, and those of the experts that one token leaves alone."""
    total = in_experts = 0
    with safe_open(weights, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            size = tensors.get_tensor(name).numel()
            total += size
            in_experts += size if ".experts." in name else 0
    return total, in_experts * (1 - recipe.shape.experts_per_token / recipe.shape.experts)


def _results(evaluation: dict[str, Any]) -> dict[str, Any]:
    loads = evaluation["load"]["highest"]
    samples = [_sample(*pair) for pair in evaluation["samples"].items()]
    domains = [
        [name, f"{score['bits_per_byte']:.3f}", f"{score['top_1']:.2f}", _loads(score["busiest"])]
        for name, score in evaluation["domains"].items()
    ]
    domains.append(["*training mix*", "", "", _loads(loads)])
    bars = [
        [
            bar["what"],
            bar["wanted"],
            bar["measured"],
            "passed" if bar["is_cleared"] else "**missed**",
        ]
        for bar in evaluation["gate"]
    ]
    return {
        "domain_table": _table(
            ["domain", "bits per byte", "next token right", "busiest expert, layers 0 to 5"],
            domains,
        ),
        "gate_table": _table(["bar", "wanted", "measured", ""], bars),
        "samples": "\n\n".join(samples[:NUM_OPEN_SAMPLES]),
        "more_samples": "\n\n".join(samples[NUM_OPEN_SAMPLES:]),
        "natural_mean": evaluation["natural_mean"],
        **evaluation["recall"],
        **evaluation["names"],
    }


def _loads(loads: list[float]) -> str:
    return " ".join(f"{load:.1f}" for load in loads)


def _sample(prompt: str, text: str) -> str:
    return f"```\n{prompt} -->\n{text}\n```"


def _data_table(recipe: Recipe, work: Path) -> str:
    sizes = json.loads((work / "sizes.json").read_text())
    sampled = recipe.steps * recipe.batch * recipe.window
    rows = []
    for domain, share in recipe.mean_mix().items():
        tokens, num_bytes = sizes[f"{domain}.train"]
        rows.append(
            [
                domain,
                f"{share:.0%}",
                f"{num_bytes / 1e6:.1f} MB, {tokens / 1e6:.2f} M tokens",
                f"{share * sampled / tokens:.1f}",
            ]
        )
    return _table(["domain", "share", "training text", "passes"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _sums(paths: list[Path]) -> str:
    return "\n".join(
        f"- `{hashlib.sha256(path.read_bytes()).hexdigest()}` {path.name}" for path in paths
    )


if __name__ == "__main__":
    main()
