"""`python -m tests.chaos.lying`: what each kind of wrong reply costs the requests that meet it."""

import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from rich.console import Console

from bench.harness.failure import BenchFailed
from bench.harness.table import Table
from services.cli.command import run_command
from tests.chaos.lies import KINDS
from tests.chaos.trial_of_lies import court
from tests.checkpoints import VOCAB_SIZE, save_tiny

HEADINGS = ("kind of reply", "failed", "altered", "longest gap s", "frames", "state")
FILE_WIDTH = 140


async def lying(kinds: list[str], seconds: float) -> None:
    """Print a row for each kind. Raises BenchFailed when a request failed or was altered."""
    table = Table(f"one of two replicas lies, for {seconds:g} s each", HEADINGS)
    complaints = []
    with tempfile.TemporaryDirectory() as folder:
        async with court(save_tiny("olmoe", Path(folder) / "olmoe"), VOCAB_SIZE) as made:
            for kind in kinds:
                told = await made.hear(kind, least_seconds=seconds)
                state = told.state.removeprefix("SERVICE_STATE_").lower()
                counts = (len(told.failures), told.num_altered)
                table.add(kind, *counts, told.longest_gap, told.num_frames, state)
                complaints += [f"{kind}: {failure}" for failure in dict.fromkeys(told.failures)]
                if told.num_altered:
                    complaints.append(f"{kind}: {told.num_altered} requests were altered")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print(table.as_rich())
    if complaints:
        raise BenchFailed("\n".join(complaints))


def main() -> int:
    """Let it lie; the exit code."""
    parser = ArgumentParser(prog="python -m tests.chaos.lying", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.0, help="of each kind, at least")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help="which"
    )
    options = parser.parse_args()
    return run_command(lying(options.kinds, options.seconds), command="chaos")


if __name__ == "__main__":
    sys.exit(main())
