"""What is made of the samples of layers: by transport, and one transport over the other."""

from bench.harness.report import Report
from bench.harness.statistics import Spread
from bench.layer.cases import Case
from bench.layer.path import LayerSample
from bench.layer.tables import PATH_PARTS, SERVICE_PARTS, Taken, add_paths
from bench.rig.transports import GRPC, NATIVE, RATIO
from services.runtime.embedded_model import EMBEDDED_MODEL

CASE = Case("a layer", EMBEDDED_MODEL, 4, 2)


def sample(factor: int, *, compute: int = 1_000) -> LayerSample:
    """Of two frames."""
    frame = {**dict.fromkeys(SERVICE_PARTS, 100), "compute": compute}
    return LayerSample(
        total=factor * 10_000,
        parts=dict.fromkeys(PATH_PARTS, 1_000),
        service=[frame, frame],
        frame_bytes=[(10, 10)] * 2,
        router_cpu=factor * 4_000,
        service_cpu=factor * 6_000,
    )


def cells(spreads: tuple[object, ...]) -> list[float | None]:
    return [spread.median if isinstance(spread, Spread) else None for spread in spreads]


def test_a_services_cpu_time_is_shown_with_and_without_its_kernel() -> None:
    report = Report("layer", "")
    add_paths(report, [Taken(CASE, GRPC, [sample(1)])])
    path, service, cpu = report.tables
    assert len(path.rows) == len(PATH_PARTS) + 1
    assert len(service.rows) == len(SERVICE_PARTS)
    (row,) = cpu.rows
    assert row[:2] == ("a layer", GRPC)
    assert cells(row[2:5]) == [2, 3, 2]
    assert report.samples["path, ns"].keys() == {"a layer, grpc"}


def test_ratios_are_those_of_the_same_round() -> None:
    report = Report("layer", "")
    taken = [
        Taken(CASE, GRPC, [sample(2), sample(4)]),
        Taken(CASE, NATIVE, [sample(1), sample(3)]),
    ]
    add_paths(report, taken)
    table = report.tables[-1]
    assert table.title.startswith(RATIO)
    ((label, *ratios),) = table.rows
    assert label == "a layer"
    without_kernel = (2 / 5 + 8 / 11) / 2
    assert cells(tuple(ratios)) == [0.625, 0.625, 0.625, without_kernel]


def test_a_kernel_that_waited_longer_than_the_service_computed_is_left_out() -> None:
    report = Report("layer", "")
    slow = [sample(1, compute=9_000)]
    add_paths(report, [Taken(CASE, GRPC, slow), Taken(CASE, NATIVE, slow)])
    cpu, ratios = report.tables[-2:]
    assert [row[4] for row in cpu.rows] == [None, None]
    assert cells(ratios.rows[0][1:]) == [1, 1, 1, None]
