"""Which services and experts computed an answer."""

from collections import Counter
from collections.abc import Iterable

import grpc
from rich.table import Table
from rich.text import Text

from moesaic.v1 import common_pb2, placement_pb2_grpc, router_pb2
from services.cli.known import Known
from services.cli.report import Report
from services.runtime.channels import open_channel
from services.runtime.roles import Role
from services.wire.errors import from_rpc

ASK_SECONDS = 10.0
BUSIEST = 4
BAR = 20  # columns

Expert = tuple[int, int]  # layer, number


async def show_answered_by(
    routed: Iterable[common_pb2.RoutedExperts], known: Known, router: str, report: Report
) -> None:
    """Show the services by their share of the answer's (token, expert) pairs, as far as a router
    says who hosts what, and the busiest experts.
    """
    chosen = Counter(
        (layer.layer, expert)
        for token in routed
        for layer in token.layers
        for expert in layer.experts
    )
    if not router:
        report.line("which services these were, a router knows: give --router")
    else:
        try:
            placement = await _placement(router)
        except grpc.aio.AioRpcError as error:
            report.line(f"the router at {router} does not say who hosts what: {from_rpc(error)}")
        else:
            report.console.print(services_table(chosen, placement, known))
    report.console.print(experts_table(chosen))


def services_table(
    chosen: Counter[Expert], placement: router_pb2.GetPlacementResponse, known: Known
) -> Table:
    """A row for each service, the busiest first. What several host counts for each in equal
    parts.
    """
    hosts: dict[Expert, list[str]] = {}
    for service in placement.services:
        for hosted in service.layers if service.is_live else ():
            for expert in hosted.experts:
                hosts.setdefault((hosted.layer, expert), []).append(service.address)
    pairs: dict[str, float] = {}
    for one, number in chosen.items():
        for address in hosts.get(one, ()):
            pairs[address] = pairs.get(address, 0.0) + number / len(hosts[one])
    table = _table("who computed the answer", "service", "experts", "pairs", "share")
    table.columns[3].justify = "left"
    for address, computed in sorted(pairs.items(), key=lambda item: -item[1]):
        used = sum(address in hosts.get(one, ()) for one in chosen)
        share = computed / chosen.total()
        bar = "█" * round(share * BAR)
        table.add_row(
            Text(known.name(address)), str(used), f"{computed:,.0f}", f"{share:.0%} {bar}"
        )
    return table


def experts_table(chosen: Counter[Expert]) -> Table:
    """The busiest experts of each layer, by their share of its pairs."""
    table = _table("experts by their share of a layer's pairs", "layer", "busiest first")
    table.columns[1].justify = "left"
    for layer in sorted({layer for layer, _ in chosen}):
        numbers = Counter({expert: n for (at, expert), n in chosen.items() if at == layer})
        busiest = numbers.most_common(BUSIEST)
        said = "   ".join(f"{expert:>3} {n / numbers.total():>4.0%}" for expert, n in busiest)
        more = f"   and {len(numbers) - BUSIEST} more" if len(numbers) > BUSIEST else ""
        table.add_row(str(layer), said + more)
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


async def _placement(router: str) -> router_pb2.GetPlacementResponse:
    async with open_channel(router, server_name=Role.ROUTER.server_name) as channel:
        placement: router_pb2.GetPlacementResponse = await placement_pb2_grpc.PlacementServiceStub(
            channel
        ).GetPlacement(router_pb2.GetPlacementRequest(), timeout=ASK_SECONDS)
    return placement
