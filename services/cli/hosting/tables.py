"""Who hosts what, for people: a table of services, a map of replicas and warnings; and as one
object for programs.
"""

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from moesaic.v1 import router_pb2
from services.cli.hosting.document import ranges_of

GROUP = 16  # experts of the map without a space between
LINE = 64  # experts of the map on one line
MAX_NAMED = 8  # experts named in a warning

BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def state_of(service: router_pb2.PlacedService) -> str:
    """`live`, `lost`, `suspect` or `draining`."""
    return router_pb2.ServiceState.Name(service.state).removeprefix("SERVICE_STATE_").lower()


def services_table(placement: router_pb2.GetPlacementResponse) -> Table:
    """One row for each service; how many experts of a layer it has, from the layer with fewest to
    that with most.
    """
    table = Table(title="expert services", title_justify="left", box=None, pad_edge=False)
    table.add_column("address", overflow="fold")
    table.add_column("state")
    table.add_column("device")
    table.add_column("streams")
    for heading in ("memory used", "free", "experts", "per layer"):
        table.add_column(heading, justify="right")
    for service in placement.services:
        counts = _counts(service, placement)
        used = service.expert_memory_bytes - service.free_memory_bytes
        span = f"{min(counts)}" if len(set(counts)) < 2 else f"{min(counts)}-{max(counts)}"
        figures = (_bytes(used), _bytes(service.free_memory_bytes), str(sum(counts)), span)
        table.add_row(
            service.address,
            state_of(service),
            service.device,
            service.streams,
            *(figures if service.is_live else ("-",) * len(figures)),
        )
    return table


def replica_map(placement: router_pb2.GetPlacementResponse) -> Text:
    """For each layer, how many live services each expert is ready on: a digit for each, `.` for
    none.
    """
    text = Text(f"replicas of each expert, {GROUP} a group\n")
    width = len(f"layer {max(placement.moe_layers, default=0)}")
    for layer, counts in replicas(placement).items():
        for start in range(0, len(counts), LINE):
            label = f"layer {layer}" if start == 0 else ""
            text.append(f"{label:<{width}}")
            for index, count in enumerate(counts[start : start + LINE]):
                text.append("  " if index % GROUP == 0 else "")
                text.append(_digit(count), style="bold red" if count < placement.coverage else "")
            text.append("\n")
    return text


def warnings(placement: router_pb2.GetPlacementResponse) -> list[str]:
    """Experts that lack replicas, and services that cannot be used, in a line each."""
    lines = []
    for least, most, what in (
        (0, 0, "on no service"),
        (1, placement.coverage - 1, "on too few services"),
    ):
        lacking = [
            f"{layer}/{expert}"
            for layer, counts in replicas(placement).items()
            for expert, count in enumerate(counts)
            if least <= count <= most
        ]
        if lacking:
            named = ", ".join(lacking[:MAX_NAMED]) + (", …" if len(lacking) > MAX_NAMED else "")
            lines.append(
                f"{len(lacking)} experts (layer/expert) are ready {what}, coverage "
                f"{placement.coverage}: {named}"
            )
    lines += [
        f"{service.address} cannot be used: {service.refusal}"
        for service in placement.services
        if service.refusal
    ]
    return lines


def summary(placement: router_pb2.GetPlacementResponse) -> str:
    """Layers, experts, coverage and what there is, in a line."""
    num_live = sum(service.is_live for service in placement.services)
    return (
        f"{len(placement.moe_layers)} layers of {placement.num_experts} experts on {num_live} "
        "live services; coverage "
        f"{placement.coverage} is asked for, the least replicated expert has "
        f"{placement.min_live_replicas}"
    )


def as_object(placement: router_pb2.GetPlacementResponse) -> dict[str, Any]:
    """What `--json` prints; experts as ranges, as in a placement file."""
    return {
        "model_digest": placement.model_digest,
        "coverage": placement.coverage,
        "min_live_replicas": placement.min_live_replicas,
        "moe_layers": list(placement.moe_layers),
        "num_experts": placement.num_experts,
        "services": [_service_object(service) for service in placement.services],
        "uncovered": {
            str(layer): ranges_of(
                expert for expert, count in enumerate(counts) if count < placement.coverage
            )
            for layer, counts in replicas(placement).items()
            if any(count < placement.coverage for count in counts)
        },
    }


def replicas(placement: router_pb2.GetPlacementResponse) -> dict[int, list[int]]:
    """For each layer, the number of live services that each expert is ready on."""
    counts = {layer: [0] * placement.num_experts for layer in placement.moe_layers}
    for layer, expert in _ready(placement):
        counts[layer][expert] += 1
    return counts


def _ready(placement: router_pb2.GetPlacementResponse) -> Iterator[tuple[int, int]]:
    for service in placement.services:
        for hosted in service.layers if service.is_live else ():
            for expert in hosted.experts:
                yield hosted.layer, expert


def _service_object(service: router_pb2.PlacedService) -> dict[str, Any]:
    return {
        "address": service.address,
        "state": state_of(service),
        "device": service.device,
        "streams": service.streams,
        "generation": service.generation,
        "expert_memory_bytes": service.expert_memory_bytes,
        "free_memory_bytes": service.free_memory_bytes,
        "num_experts": sum(len(hosted.experts) for hosted in service.layers),
        "refusal": service.refusal,
        "layers": {str(hosted.layer): ranges_of(hosted.experts) for hosted in service.layers},
    }


def _counts(
    service: router_pb2.PlacedService, placement: router_pb2.GetPlacementResponse
) -> list[int]:
    """Experts of each of the model's layers."""
    by_layer = {hosted.layer: len(hosted.experts) for hosted in service.layers}
    return [by_layer.get(layer, 0) for layer in placement.moe_layers] or [0]


def _digit(count: int) -> str:
    return "." if count == 0 else str(count) if count < 10 else "+"


def _bytes(count: int) -> str:
    value, unit = float(count), 0
    while value >= 1024 and unit < len(BYTE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {BYTE_UNITS[unit]}" if unit else f"{count} B"
