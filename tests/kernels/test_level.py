"""Which instruction set is used, and that it can be chosen or switched off."""

import os
import subprocess
import sys

import pytest

from services import kernels

SAY = """
import torch
from services import kernels
print(kernels.AVAILABLE, kernels.level())
print(kernels.linear_pays(1, torch.ones(2, 2)), kernels.most_pairs_per_expert(torch.float32) > 0)
print(kernels.most_layer_rows(torch.ones(2, 2)) > 0)
"""


def said_with(variable: str) -> list[str]:
    """Whether there are kernels, their level, and whether those with a crossover pay."""
    environment = {**os.environ, "MOESAIC_KERNELS": variable}
    ended = subprocess.run(
        [sys.executable, "-c", SAY],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout.split()


def test_the_portable_level_is_everywhere(level: str) -> None:
    assert kernels.LEVELS[-1] == "portable"
    assert kernels.level() == level


def test_a_level_that_is_not_there_is_refused(level: str) -> None:
    with pytest.raises(ValueError, match="no kernels of level 'avx1024'"):
        kernels.set_level("avx1024")
    assert kernels.level() == level


def test_the_environment_chooses_the_level() -> None:
    if not kernels.AVAILABLE:
        pytest.skip("the kernels were not built")
    assert said_with("portable") == ["True", "portable", "True", "True", "True"]


def test_a_level_of_the_environment_that_is_not_there_is_told() -> None:
    if not kernels.AVAILABLE:
        pytest.skip("the kernels were not built")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        said_with("avx1024")
    assert (
        "ImportError: MOESAIC_KERNELS: 'avx1024': this processor has no such kernels, only"
        in failed.value.stderr
    )


def test_the_environment_switches_the_kernels_off_and_nothing_pays() -> None:
    assert said_with("off") == ["False", "off", "False", "False", "False"]
