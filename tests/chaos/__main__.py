"""`python -m tests.chaos`: a long run of events drawn from a seed, on a cluster under load."""

import random
import sys
from argparse import ArgumentParser

from rich.console import Console

from bench.harness.failure import BenchFailed
from bench.hosting.findings import table_of
from services.cli.command import run_command
from tests.chaos.schedule import Drawing
from tests.chaos.storm import run

NUM_EVENTS = 40
FILE_WIDTH = 140


async def storm(seed: int, num_events: int) -> None:
    """Print what each event did. Raises BenchFailed when anything was wrong."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print(
        f"seed {seed}: `make chaos SEED={seed}` draws the same events again", markup=False
    )
    findings = await run(
        Drawing(seed).events(num_events), say=lambda line: console.print(f"  {line}", markup=False)
    )
    console.print(table_of(f"chaos, seed {seed}", findings).as_rich())
    if complaints := [complaint for finding in findings for complaint in finding.complaints()]:
        raise BenchFailed("\n".join(dict.fromkeys(complaints)))


def main() -> int:
    """Run the storm; its exit code."""
    parser = ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="draws the events; without it a seed is made up, and printed"
    )
    parser.add_argument(
        "--events",
        type=int,
        default=NUM_EVENTS,
        metavar="N",
        help="how many at least (default: %(default)s)",
    )
    options = parser.parse_args()
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    return run_command(storm(seed, options.events), command="chaos")


if __name__ == "__main__":
    sys.exit(main())
