"""The plot beside each table."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.harness.failure import BenchFailed
from bench.harness.statistics import Spread

Draw = Callable[[Any], None]
"""Draws into one of matplotlib's axes."""

PANEL_INCHES = (5.0, 3.8)


def require_matplotlib() -> None:
    """Raise BenchFailed before anything is measured that could not be drawn."""
    if find_spec("matplotlib") is None:
        raise BenchFailed(
            "matplotlib is missing; `pip install -c constraints.txt -e '.[bench]'` brings it"
        )


def write_plot(path: Path, title: str, panels: Sequence[Draw]) -> None:
    """Write a PNG with the panels beside each other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width, height = PANEL_INCHES
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(width * len(panels), height), squeeze=False
    )
    for draw, axis in zip(panels, axes[0], strict=True):
        draw(axis)
        axis.grid(visible=True, alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_spreads(axis: Any, places: Sequence[float], spreads: Sequence[Spread], label: str) -> None:
    """A line through the medians, with the quartiles as bars."""
    medians = [spread.median for spread in spreads]
    below = [spread.median - spread.low for spread in spreads]
    above = [spread.high - spread.median for spread in spreads]
    axis.errorbar(
        places, medians, yerr=(below, above), marker="o", markersize=3, capsize=2, label=label
    )


def label_axes(
    axis: Any, title: str, x: str, y: str, *, log_x: bool = True, log_y: bool = False
) -> None:
    """Name a panel and its axes; x counts in powers of two where `log_x`."""
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    if log_x:
        axis.set_xscale("log", base=2)
    if log_y:
        axis.set_yscale("log")
    axis.legend(fontsize=7)
