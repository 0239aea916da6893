"""What is made of a cluster's tokens over each transport, and of transformers'."""

from collections.abc import Sequence

import pytest

from bench.generate.cases import CLIENT, ROUTER, SERVICES, Case, seat
from bench.generate.tables import NEITHER, fill
from bench.generate.transformers_load import Setting
from bench.harness.report import Report
from bench.harness.statistics import Spread
from bench.harness.table import Cell, Table
from bench.rig.generated import Generated
from bench.rig.transports import GRPC, NATIVE
from moesaic.v1 import common_pb2

SETTING = Setting("eager", 1)


def generated(
    seconds: float, tokens: Sequence[Sequence[int]] = ((1, 2, 3), (4, 5, 6))
) -> Generated:
    """Two requests of three tokens, each of them a third of the time after the one before."""
    decode = common_pb2.PhaseReceipt(
        dense_nanos=int(seconds * 6e8), expert_compute_nanos=int(seconds * 2e8), steps=2
    )
    return Generated(
        seconds,
        [[seconds / 3, 2 * seconds / 3, seconds]] * 2,
        tokens,
        {**dict.fromkeys(SERVICES, seconds), "transformers": seconds},
        [common_pb2.LatencyReceipt(decode=decode)] * 2,
    )


def case(transports: Sequence[str] = (GRPC, NATIVE), kernel_micros: Sequence[float] = ()) -> Case:
    """Two rounds: native takes half as long as grpc, and transformers twice as long."""
    seconds = {GRPC: (2.0, 4.0), NATIVE: (1.0, 2.0)}
    other = [generated(1.0, ((1, 2, 3), (4, 5, 7))), generated(2.0)]
    samples = {
        seat(party, transport): [generated(taken) for taken in seconds[transport]]
        for party in (CLIENT, ROUTER)
        for transport in transports
    }
    if NATIVE in transports:
        samples[seat(CLIENT, NATIVE)] = other
    samples[str(SETTING)] = [generated(4.0), generated(8.0)]
    probes = {SETTING: generated(4.0)}
    return Case("shipped", 2, transports, [SETTING], probes, samples, kernel_micros)


def tables(*cases: Case) -> dict[str, Table]:
    report = Report("generate", "")
    fill(report, cases)
    return {table.title: table for table in report.tables}


def medians(cells: Sequence[Cell]) -> list[object]:
    return [pytest.approx(cell.median) if isinstance(cell, Spread) else cell for cell in cells]


def test_every_figure_of_one_transport_is_over_the_others_of_the_same_round() -> None:
    table = tables(case())["native ÷ grpc, of the same round"]
    found = {str(row[0]): medians(row[1:]) for row in table.rows}
    assert found.pop("requests with the same tokens over both") == ["3 of 4"]
    assert found.pop("with the same over grpc as in the round before") == ["2 of 2"]
    assert found.pop("tokens/s at the client") == found.pop("tokens/s at the router") == [2]
    assert len(found) == 4 + len(SERVICES)
    assert all(cells == [0.5] for cells in found.values())


def test_each_transport_is_compared_with_transformers() -> None:
    found = tables(case())
    rates = found["tokens per second, prompts counted in the time"]
    assert [row[1] for row in rates.rows] == [GRPC, NATIVE]
    assert [medians(row[-2:]) for row in rates.rows] == [[2, 2], [4, 4]]
    latencies = found[
        "ms to the first token (median), and between tokens (percentiles of all rounds)"
    ]
    assert [medians(row[-1:]) for row in latencies.rows] == [[0.5], [0.25]]


def test_what_is_neither_product_nor_attention_nor_memory_is_the_rest_of_a_step() -> None:
    report = Report("generate", "")
    fill(report, [case(kernel_micros=[20_000, 40_000, 30_000])])
    (table,) = (table for table in report.tables if "neither" in table.title)
    native = table.rows[1]
    # Steps of 400 and 800 ms, a quarter of which is expert compute.
    assert medians(native[2:5]) == [600, 150, 30]
    assert medians(native[5:]) == [pytest.approx(((400 - 130) / 4 + (800 - 230) / 8) / 2)]
    assert NEITHER in report.notes


def test_one_transport_alone_has_no_ratios_and_without_kernels_there_are_no_shares() -> None:
    titles = " ".join(tables(case([GRPC])))
    assert "neither" not in titles
    assert "native" not in titles
