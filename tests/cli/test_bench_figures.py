"""The figures of a load, from samples made by hand, and what is shown of them."""

import io

import pytest
from rich.console import Console

from moesaic.v1 import common_pb2, generation_pb2
from services.cli.bench.failures import failure_sentence, reasons_of
from services.cli.bench.figures import Figures, figures_of
from services.cli.bench.loads import Bounds, ClosedLoop, OpenLoop
from services.cli.bench.objectives import Objective, num_good, read_objectives
from services.cli.bench.receipts import TimeKind, spent
from services.cli.bench.run import LoadRun
from services.cli.bench.sample import RequestFailure, Sample
from services.cli.bench.tables import remarks, shown, tables
from services.cli.cost import AFTER, BEFORE, PHASE_PARTS

MILLI = 1_000_000


def completed(*, sent: int = 0, arrivals: list[int], counts: list[int], ended: int) -> Sample:
    """Times in milliseconds; it was due at 0."""
    completion = generation_pb2.Completion(usage=common_pb2.Usage(prompt_tokens=10))
    completion.receipt.end_to_end_nanos = 100
    completion.receipt.decode.wire_nanos = 25
    nanos = [arrival * MILLI for arrival in arrivals]
    return Sample(0, 0, sent * MILLI, nanos, counts, ended * MILLI, completion)


def failed(status: str, message: str = "", retry_after_seconds: float | None = None) -> Sample:
    return Sample(
        0, 0, 0, ended_nanos=1, failure=RequestFailure(status, message, retry_after_seconds)
    )


FAST = completed(arrivals=[100, 140], counts=[1, 2], ended=150)
SLOW = completed(sent=50, arrivals=[300, 400, 500], counts=[1, 1, 1], ended=500)


def run_of(*samples: Sample, milliseconds: int = 1000) -> LoadRun:
    run = LoadRun(ClosedLoop(2), Bounds(len(samples), None))
    run.samples = list(samples)
    run.began_nanos, run.ended_nanos = 0, milliseconds * MILLI
    run.num_failed = sum(sample.failure is not None for sample in samples)
    return run


def test_latencies_count_from_when_a_request_was_due() -> None:
    assert SLOW.first_token_seconds == 0.3
    assert SLOW.end_to_end_seconds == 0.5
    assert SLOW.late_seconds == 0.05
    assert SLOW.per_token_seconds == 0.1
    assert FAST.interval_seconds == [0.02, 0.02]
    assert FAST.per_token_seconds == 0.02


def test_a_request_without_a_second_token_has_no_time_per_token() -> None:
    one = completed(arrivals=[100], counts=[1], ended=150)
    assert one.per_token_seconds is None
    assert one.slow_interval_seconds is None


def test_figures_add_up() -> None:
    unfinished = Sample(0, 0, 0, [900 * MILLI], [1])
    figures = figures_of(
        run_of(FAST, SLOW, failed("UNAVAILABLE"), unfinished, milliseconds=2000), []
    )
    assert (figures.num_completed, figures.num_failed, figures.num_unfinished) == (2, 1, 1)
    assert figures.requests_per_second == 1.0
    assert figures.output_tokens_per_second == 3.5  # those of the unfinished request came too
    assert figures.input_tokens_per_second == 10.0
    latencies = figures.latencies
    assert latencies.ttft is not None and latencies.e2e is not None
    assert latencies.itl is not None and latencies.late is not None
    assert latencies.ttft.count == latencies.e2e.count == 2
    assert latencies.ttft.p50 == pytest.approx(0.2)
    assert latencies.itl.count == 4
    assert latencies.itl.mean == pytest.approx(0.06)
    assert latencies.late.count == 4
    assert figures.goodput_requests_per_second is figures.good_share is None


def test_a_load_without_a_completed_request_has_no_latencies() -> None:
    figures = figures_of(run_of(failed("UNAVAILABLE")), [])
    latencies = figures.latencies
    assert latencies.ttft is latencies.itl is latencies.tpot is latencies.e2e is None
    assert figures.requests_per_second == 0


def test_goodput_counts_what_was_completed_and_keeps_every_objective() -> None:
    figures = figures_of(
        run_of(FAST, SLOW, failed("UNAVAILABLE"), milliseconds=2000),
        read_objectives(["ttft=200ms"]),
    )
    assert figures.goodput_requests_per_second == 0.5
    assert figures.good_share == pytest.approx(1 / 3)


def test_objectives_are_read_with_their_unit() -> None:
    assert read_objectives(["ttft=200ms", "itl<=0.5 s", " e2e = 2s", "tpot<900us"]) == [
        Objective("ttft", 0.2),
        Objective("itl", 0.5),
        Objective("e2e", 2.0),
        Objective("tpot", pytest.approx(0.0009)),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize(
    "text", ["", "ttft", "ttft=200", "ttft=ms", "latency=2s", "ttft>2s", "ttft=-1s"]
)
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no objective such as"):
        read_objectives([text])


@pytest.mark.parametrize(
    ("objective", "good"),
    [
        ("ttft=100ms", 1),
        ("ttft=99ms", 0),
        ("ttft=300ms", 2),
        ("itl=20ms", 1),
        ("itl=100ms", 2),
        ("tpot=19ms", 0),
        ("tpot=20ms", 1),
        ("e2e=149ms", 0),
        ("e2e=500ms", 2),
    ],
)
def test_a_bound_that_is_just_kept_is_kept(objective: str, good: int) -> None:
    assert num_good([FAST, SLOW, failed("UNAVAILABLE")], read_objectives([objective])) == good


def test_failures_are_told_by_reason_with_the_most_frequent_first() -> None:
    samples = [
        FAST,
        failed("UNAVAILABLE", "the router was lost"),
        failed("RESOURCE_EXHAUSTED", "256 requests are waiting", 0.5),
        failed("RESOURCE_EXHAUSTED", "257 requests are waiting", 2.0),
    ]
    assert failure_sentence(samples) == (
        "3 of 4 requests failed: 2 RESOURCE_EXHAUSTED (256 requests are waiting), to be tried "
        "again after 0.5 to 2 s; "
        "1 UNAVAILABLE (the router was lost)"
    )


def test_one_advised_pause_is_no_span() -> None:
    (reason,) = reasons_of([failed("RESOURCE_EXHAUSTED", "full", 1.5)])
    assert str(reason) == "1 RESOURCE_EXHAUSTED (full), to be tried again after 1.5 s"


def test_where_nothing_failed_nothing_is_said() -> None:
    assert failure_sentence([FAST, SLOW]) is None


def receipt(**nanos: int) -> common_pb2.LatencyReceipt:
    made = common_pb2.LatencyReceipt(end_to_end_nanos=1000)
    for name, value in nanos.items():
        setattr(made if name in made.DESCRIPTOR.fields_by_name else made.decode, name, value)
    return made


def test_where_the_time_went_is_told_in_medians() -> None:
    receipts = [
        receipt(gateway_router_nanos=100, wire_nanos=300, dense_nanos=500, steps=4),
        receipt(gateway_router_nanos=100, wire_nanos=500, dense_nanos=300, steps=4),
        receipt(gateway_router_nanos=300, wire_nanos=100, dense_nanos=500, steps=4),
    ]
    found = spent(receipts)
    parts = {part.name: part for part in found.parts}
    assert parts["wire_nanos"].milliseconds == pytest.approx(0.0003)
    assert parts["wire_nanos"].share == 0.3
    assert found.shares[TimeKind.COMMUNICATION] == 0.4  # of 0.4, 0.6 and 0.4
    assert found.shares[TimeKind.COMPUTING] == 0.5
    assert found.decode_step_milliseconds == pytest.approx(0.0002)


def test_every_part_of_a_receipt_is_of_one_kind() -> None:
    found = spent([])
    names = [name for name, _ in (*BEFORE, *PHASE_PARTS, *AFTER)]
    assert [part.name for part in found.parts] == names
    fields = {field.name for field in common_pb2.PhaseReceipt.DESCRIPTOR.fields} - {"steps"}
    fields |= {
        name
        for name in common_pb2.LatencyReceipt.DESCRIPTOR.fields_by_name
        if name.endswith("_nanos")
    }
    assert set(names) == fields - {"end_to_end_nanos"}
    assert set(found.shares.values()) == {0.0}


def printed(*all_figures: Figures, width: int = 100) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width)
    for table in tables(all_figures, width):
        console.print(table)
    return text.getvalue()


def test_tables_with_large_figures_fit_in_a_hundred_columns() -> None:
    run = run_of(*[FAST, SLOW] * 5000, milliseconds=987)
    run.load = OpenLoop(1234.5, "constant", 0, 1)
    figures = figures_of(run, read_objectives(["ttft=200ms"]))
    text = printed(figures, figures, figures, figures, figures)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("1234.5/s") == 5 + 5 + 5, "no label is cut or folded"
    assert text.count(" 10,132 ") == 5, "and no figure"
    assert text.count("where a request's time went") == 2


def test_tables_with_large_figures_fit_in_eighty_columns() -> None:
    run = run_of(*[FAST, SLOW] * 5000, milliseconds=987)
    run.load = OpenLoop(1234.5, "constant", 0, 1)
    figures = figures_of(run, read_objectives(["ttft=200ms"]))
    text = printed(figures, figures, figures, figures, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("1234.5/s") == 4 + 4 + 4, "no label is cut or folded"
    assert text.count(" 10,132 ") == 4, "and no figure"
    assert "all communication " in text


def test_a_load_where_nothing_was_completed_is_a_line_of_dashes() -> None:
    text = printed(figures_of(run_of(failed("UNAVAILABLE")), []))
    assert "latency in ms: " not in text
    assert "where a request's time went" not in text
    assert "2 at a time" in text


def test_remarks_name_failures_what_was_given_up_and_lateness() -> None:
    run = run_of(failed("UNAVAILABLE", "gone"), Sample(0, 0, 200 * MILLI))
    run.lag.late_seconds, run.lag.began_nanos, run.lag.ended_nanos = [0.5], 0, 1000 * MILLI
    assert list(remarks(figures_of(run, []))) == [
        "2 at a time: failed: 1 UNAVAILABLE (gone)",
        "2 at a time: in flight when it was broken off: 1",
        "2 at a time: this client was late itself for 50% of the time (above 5%); its latencies "
        "contain that",
        "2 at a time: requests were sent late by up to 200 ms (p99 198); latencies count from "
        "when they were due",
    ]


def test_a_load_that_went_well_has_no_remarks() -> None:
    run = run_of(FAST)
    run.lag.late_seconds, run.lag.began_nanos, run.lag.ended_nanos = [0.0, 0.01], 0, 1000 * MILLI
    assert list(remarks(figures_of(run, []))) == []


def test_figures_are_shown_with_three_digits() -> None:
    assert [shown(value) for value in (None, 0, 0.123, 9.994, 9.996, 12.345, 99.96, 1234.5)] == [
        *("-", "0.00", "0.12", "9.99", "10.0", "12.3", "100", "1,234"),
    ]
