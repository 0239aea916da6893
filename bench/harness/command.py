"""How every bench is called, and how it ends."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from bench.harness.plot import require_matplotlib
from bench.harness.progress import Stages
from bench.harness.report import Report
from services.cli.command import run_command
from services.runtime.allocator import keep_freed_memory
from services.runtime.event_loop import NEW_LOOP
from services.runtime.garbage import set_aside_what_stays

HELP_WIDTH = 88
OUTPUT = Path("build") / "bench"

Measure = Callable[[Namespace, Stages], Coroutine[Any, Any, Report]]

EPILOG = """\
Variants run in turn (A B A B …) in one process tree; figures are medians with their
quartiles. The raw samples are in the JSON, and a plot (PNG) stands beside it.
Absolute times are those of this machine at this moment; ratios travel better.
"""


def bench_parser(name: str, description: str, examples: Sequence[str] = ()) -> ArgumentParser:
    """A parser with what every bench takes; the bench adds its own."""
    lines = [
        f"  python -m bench.{name} {example}".rstrip() for example in ("", "--quick", *examples)
    ]
    parser = ArgumentParser(
        prog=f"python -m bench.{name}",
        description=fill(description, HELP_WIDTH),
        epilog=f"{EPILOG}\nexamples:\n" + "\n".join(lines),
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer cases and repeats, for a first look"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=OUTPUT / f"{name}.json",
        help="where to write the results; the plot goes beside it (default: %(default)s)",
    )
    return parser


def add_numbers(parser: ArgumentParser, name: str, default: Sequence[int], meaning: str) -> None:
    """Add a flag that takes whole numbers above 0 with commas between them."""
    shown = f" (default: {','.join(map(str, default))})" if default else ""
    parser.add_argument(
        f"--{name}", type=numbers, metavar="N[,N…]", default=default, help=f"{meaning}{shown}"
    )


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of such a flag; raises what argparse shows when one is none."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentTypeError(f"{text!r} is no list of whole numbers above 0")
    return tuple(map(int, parts))


def run_bench(
    parser: ArgumentParser, measure: Measure, arguments: Sequence[str] | None = None
) -> int:
    """Measure, print and write; the exit code. SIGINT and SIGTERM stop what was started before it
    ends.
    """
    options = parser.parse_args(arguments)
    options.command = [parser.prog, *(sys.argv[1:] if arguments is None else arguments)]
    command = parser.prog.removeprefix("python -m ")
    return run_command(_run(measure, options), command=command, new_loop=NEW_LOOP)


async def _run(measure: Measure, options: Namespace) -> None:
    require_matplotlib()
    # This process plays a router of one thread, and lives as one does, on its loop as well; idle
    # threads of torch would spin beside the services.
    torch.set_num_threads(1)
    keep_freed_memory()
    set_aside_what_stays()
    with torch.inference_mode():
        report = await measure(options, Stages())
    report.print()
    for path in report.write(options.json, options.command):
        print(f"wrote {path}", file=sys.stderr)
