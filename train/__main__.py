"""The training run: python -m train --steps N."""

import argparse
import json
import time
from pathlib import Path

import torch

from train.recipe import MIX, Recipe
from train.trainer import StepReport, Trainer
from train.windows import Windows, read_streams

LOG_EVERY = 25


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(steps=arguments.steps)
    streams = read_streams(arguments.work, list(MIX), "train")
    windows = Windows(streams, window=recipe.window, batch=recipe.batch, seed=recipe.seed)
    trainer = Trainer(recipe, windows)
    if arguments.resume is not None:
        trainer.restore(arguments.resume)
        if trainer.step > recipe.decay_start:
            raise SystemExit(
                f"{arguments.resume} is past step {recipe.decay_start}, where this run's decay "
                "starts"
            )
    run(trainer, arguments.work, arguments.save_every)


def run(trainer: Trainer, work: Path, save_every: int) -> None:
    """Takes the remaining steps, with a line in `log.jsonl` and a checkpoint now and then."""
    checkpoints = work / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    started, first = time.monotonic(), trainer.step
    with (work / "log.jsonl").open("a", buffering=1) as log:
        while trainer.step < trainer.recipe.steps:
            report = trainer.take_step()
            if trainer.step % LOG_EVERY == 0 or trainer.step == trainer.recipe.steps:
                pace = (trainer.step - first) / (time.monotonic() - started)
                log.write(_line(trainer, report, pace))
            if trainer.step % save_every == 0 or trainer.step == trainer.recipe.steps:
                trainer.save(checkpoints / f"step-{trainer.step:05d}.pt")


def _line(trainer: Trainer, report: StepReport, steps_per_second: float) -> str:
    tokens_per_step = trainer.recipe.batch * trainer.recipe.window
    values = {
        "time": time.strftime("%H:%M:%S"),
        "step": trainer.step,
        "loss": round(report.loss, 4),
        "balance": round(report.balance, 4),
        "gradient": round(report.gradient, 3),
        "rate": report.rate,
        "tokens_per_second": round(steps_per_second * tokens_per_step),
    }
    return json.dumps(values) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    parser.add_argument(
        "--steps", type=int, required=True, help="length of the whole run, resumed or not"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/train"),
        help="where `python -m train.prepare` wrote",
    )
    parser.add_argument(
        "--resume", type=Path, default=None, help="a checkpoint from before the decay"
    )
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
