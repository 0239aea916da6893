"""Tries what is drawn from seeds, one after the other, until the time is up."""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence


def fuzz(
    check: Callable[[int], None],
    description: str,
    arguments: Sequence[str] | None = None,
    *,
    batch: int = 100,
) -> int:
    """`check` seed after seed, with `batch` of them between two looks at the clock; the exit code.
    What one raises is raised, once its seed was said.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to try")
    parser.add_argument("--seed", type=int, default=None, help="the first; drawn unless given")
    parsed = parser.parse_args(arguments)
    seed = first = random.SystemRandom().getrandbits(48) if parsed.seed is None else parsed.seed
    until = time.monotonic() + parsed.seconds
    print(f"from seed {first} on, for {parsed.seconds:g} s: {description}", flush=True)
    while time.monotonic() < until:
        for seed in range(seed, seed + batch):  # noqa: B020 -- the next batch goes on from there
            try:
                check(seed)
            except Exception:
                print(f"failed with --seed {seed}", file=sys.stderr, flush=True)
                raise
        seed += 1
    print(f"{seed - first:,} seeds tried")
    return 0
