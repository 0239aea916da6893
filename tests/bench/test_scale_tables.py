"""What is made of loads on simulated services: against one service, and over each transport."""

from bench.harness.report import Report
from bench.harness.statistics import Spread
from bench.rig.transports import GRPC, NATIVE
from bench.scale.load import Load, LoadSample
from bench.scale.tables import Taken, add_services, add_sweep


def taken(num_services: int, transport: str, *rates: float) -> Taken:
    samples = [
        LoadSample(
            step_ms=50,
            held_ms=40,
            rows_per_second=rate,
            router_cpu_ms=num_services,
            service_cpu_ms=2 * num_services,
            num_frames=num_services,
        )
        for rate in rates
    ]
    return Taken(str(num_services), transport, Load(num_services), samples)


def medians(row: tuple[object, ...]) -> list[float | None]:
    return [cell.median if isinstance(cell, Spread) else None for cell in row]


def test_services_are_compared_with_one_of_the_same_transport_and_with_the_other() -> None:
    report = Report("scale", "")
    both = [
        taken(1, GRPC, 100, 200),
        taken(1, NATIVE, 200, 400),
        taken(4, GRPC, 200, 400),
        taken(4, NATIVE, 600, 1200),
    ]
    add_services(report, "services", "a heading", both)
    (table,) = report.tables
    assert [row[:2] for row in table.rows] == [(it.label, it.transport) for it in both]
    assert [medians(row[5:7]) for row in table.rows] == [[1, None], [1, 2], [0.5, None], [0.75, 3]]
    assert medians(table.rows[0][-2:]) == [1000, 2000]
    assert report.samples["services"].keys() == {"1, grpc", "1, native", "4, grpc", "4, native"}


def test_one_transport_alone_has_no_ratio() -> None:
    report = Report("scale", "")
    add_services(report, "services", "a heading", [taken(2, NATIVE, 10)])
    add_sweep(report, "rows", "devices", [taken(2, NATIVE, 10)])
    services, sweep = (table.rows[0] for table in report.tables)
    assert services[6] is None
    assert sweep[6] is None
    assert medians(sweep[4:5]) == [10]
