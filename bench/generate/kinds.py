"""Which clusters are compared: over which transport, and with how many threads."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass

from bench.rig.transports import GRPC, NATIVE

AUTO = "auto"


@dataclass(frozen=True)
class Kind:
    """A kind of cluster by its name; without `threads` they are what `moesaic serve` chooses."""

    name: str
    transport: str
    threads: int | None


def kinds_of(transports: Sequence[str], threads: Sequence[int | None]) -> list[Kind]:
    """A kind for each transport with each number of threads, which the name has if they differ."""
    return [
        Kind(
            f"{transport}, threads {count or AUTO}" if len(threads) > 1 else transport,
            transport,
            count,
        )
        for transport in transports
        for count in threads
    ]


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which are compared: native with grpc, or where threads differ all with the first."""
    if set(names) == {GRPC, NATIVE}:
        return [(NATIVE, GRPC)]
    return [(name, names[0]) for name in names[1:]]


def add_threads(parser: ArgumentParser) -> None:
    """Add the flag with the numbers of threads."""
    parser.add_argument(
        "--threads",
        type=_threads,
        metavar="NUMBER[,NUMBER]",
        default="1",
        help="threads of the router and of each expert service to compare, in turn; auto is what "
        "`moesaic serve` chooses (default: %(default)s)",
    )


def _threads(text: str) -> tuple[int | None, ...]:
    parts = dict.fromkeys(part.strip() for part in text.split(","))
    if not all(part == AUTO or (part.isdecimal() and int(part) > 0) for part in parts):
        raise ArgumentTypeError(f"{text!r} is no list of positive numbers and {AUTO}")
    return tuple(None if part == AUTO else int(part) for part in parts)
