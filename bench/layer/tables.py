"""What the paths of bench.layer show, as tables and plots: by transport, and one over the other."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.harness.report import Report
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table
from bench.layer.cases import Case
from bench.layer.path import LayerSample
from bench.rig.transports import GRPC, NATIVE, RATIO

PATH_PARTS = (
    "encode",
    "wire",
    "expert_queue",
    "expert_compute",
    "straggler_wait",
    "lane_wait",
    "combine",
)
SERVICE_PARTS = ("wire", "decode", "queue", "compute", "encode")


@dataclass(frozen=True)
class Taken:
    """Samples of one case over one transport."""

    case: Case
    transport: str
    samples: Sequence[LayerSample]

    @property
    def label(self) -> str:
        """Which these are."""
        return f"{self.case.label}, {self.transport}"

    def micros(self, of: Callable[[LayerSample], float]) -> list[float]:
        """A figure of each layer in microseconds."""
        return [of(sample) / 1e3 for sample in self.samples]


def layer_nanos(sample: LayerSample) -> float:
    """The whole layer."""
    return sample.total


def router_nanos(sample: LayerSample) -> float:
    """The router's CPU time for a frame, from encode to combine."""
    return sample.router_cpu / len(sample.service)


def service_nanos(sample: LayerSample) -> float:
    """The service's CPU time for a frame."""
    return sample.service_cpu / len(sample.service)


def service_nanos_without_kernel(sample: LayerSample) -> float:
    """The same, less the compute time that the replies say."""
    computing = sum(frame["compute"] for frame in sample.service)
    return (sample.service_cpu - computing) / len(sample.service)


def add_paths(report: Report, all_taken: Sequence[Taken]) -> None:
    """Everything that the layers' samples show."""
    transports = list(dict.fromkeys(taken.transport for taken in all_taken))
    for transport in transports:
        own = [taken for taken in all_taken if taken.transport == transport]
        report.tables += [_path(own), _service(own)]
        report.panels.append(partial(_draw, own=own))
    report.tables.append(_cpu(all_taken))
    if {GRPC, NATIVE} <= set(transports):
        report.tables.append(_ratios(all_taken))
    report.notes += [
        "a routed token is one row through one layer; the router's side here has no model around "
        "it",
        "without its kernel: the service's CPU time less the compute time that its replies say, "
        "which counts waits for a core too; left out where it is the larger of the two",
    ]
    report.samples["path, ns"] = {
        taken.label: [vars(sample) for sample in taken.samples] for taken in all_taken
    }


def _path(own: Sequence[Taken]) -> Table:
    headings = ("part", *(taken.case.label for taken in own))
    table = Table(f"critical path of one layer, {own[0].transport}, µs", headings)
    for part in PATH_PARTS:
        cells = ([sample.parts[part] for sample in taken.samples] for taken in own)
        table.add(part.replace("_", " "), *map(_micros, cells))
    table.add("all", *(spread_of(taken.micros(layer_nanos)) for taken in own))
    return table


def _service(own: Sequence[Taken]) -> Table:
    table = Table(
        f"of one frame, {own[0].transport}, µs, as the service and the stream timed it",
        ("part", *(taken.case.label for taken in own)),
    )
    for part in SERVICE_PARTS:
        frames = (
            [frame[part] for sample in taken.samples for frame in sample.service] for taken in own
        )
        table.add(part if part == "wire" else f"service: {part}", *map(_micros, frames))
    return table


def _cpu(all_taken: Sequence[Taken]) -> Table:
    table = Table(
        "CPU time, gRPC's threads included",
        (
            "shape",
            "transport",
            "router µs/frame",
            "service µs/frame",
            "without its kernel",
            "router s/1,000 routed tokens",
            "services s/1,000",
        ),
    )
    for taken in all_taken:
        num_rows, samples = taken.case.num_rows, taken.samples
        table.add(
            taken.case.label,
            taken.transport,
            spread_of(taken.micros(router_nanos)),
            spread_of(taken.micros(service_nanos)),
            _spread_if_positive(taken.micros(service_nanos_without_kernel)),
            spread_of([sample.router_cpu / num_rows / 1e6 for sample in samples]),
            spread_of([sample.service_cpu / num_rows / 1e6 for sample in samples]),
        )
    return table


def _ratios(all_taken: Sequence[Taken]) -> Table:
    figures = {
        "layer": layer_nanos,
        "router µs/frame": router_nanos,
        "service µs/frame": service_nanos,
        "without its kernel": service_nanos_without_kernel,
    }
    table = Table(f"{RATIO}, the same layer of the same round", ("shape", *figures))
    found = {(taken.case, taken.transport): taken for taken in all_taken}
    for case in dict.fromkeys(taken.case for taken in all_taken):
        native, grpc = found[case, NATIVE], found[case, GRPC]
        pairs = [(native.micros(of), grpc.micros(of)) for of in figures.values()]
        table.add(
            case.label,
            *(ratio_of(*pair) if all(map(_spread_if_positive, pair)) else None for pair in pairs),
        )
    return table


def _spread_if_positive(micros: Sequence[float]) -> Spread | None:
    spread = spread_of(micros)
    return spread if spread.median > 0 else None


def _micros(nanos: Sequence[int]) -> Spread:
    return spread_of(nanos).scaled(1e-3)


def _draw(axis: Any, *, own: Sequence[Taken]) -> None:
    # Shares, not times: on an axis that holds all three shapes, what is drawn first would look like
    # most of it.
    totals = [statistics.median(taken.micros(layer_nanos)) for taken in own]
    left = [0.0] * len(own)
    for part in PATH_PARTS:
        medians = [
            statistics.median(sample.parts[part] for sample in taken.samples) / 1e3 for taken in own
        ]
        shares = [100 * median / total for median, total in zip(medians, totals, strict=True)]
        axis.barh(
            [taken.case.label.replace(", ", "\n") for taken in own],
            shares,
            left=left,
            label=part.replace("_", " "),
        )
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axis.set_title(own[0].transport, fontsize=9)
    axis.set_xlabel("% of the critical path's median", fontsize=8)
    axis.tick_params(labelsize=6)
    axis.legend(fontsize=6)
