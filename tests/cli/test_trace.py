"""`moesaic trace`: what it draws, what it writes, and what it says when there is
nothing to show.
"""

import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import Tracer
from rich.console import Console

from services.cli.trace.bars import bar
from services.cli.trace.chrome import chrome_document
from services.cli.trace.command import trace as command
from services.cli.trace.source import QueryClient
from services.cli.trace.waterfall import waterfall
from services.traces.layers import summarise_layers
from services.traces.model import Process, Trace
from services.traces.parts import Part, Stretch, segments_of
from services.wire.errors import InvalidRequest, NotFound, Unavailable
from tests.cli.traces import ADDRESSES, TRACE_ID, TraceWriter, two_steps
from tests.tracing.tracing_client import tracing_client


def shown(trace: Trace, **chosen: int) -> list[str]:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(waterfall(trace, **chosen))
    return console.export_text().splitlines()


def starting(lines: Sequence[str], text: str) -> list[str]:
    return [line for line in lines if line.strip().startswith(text)]


def test_the_waterfall_opens_the_slowest_step_and_names_whom_it_waited_for() -> None:
    lines = shown(Trace.parse(two_steps()))
    assert TRACE_ID in lines[0]
    assert "20.00 ms" in lines[0]
    assert len(starting(lines, "router.step 1 token")) == 2
    assert starting(lines, "step 1: 1 token, 10.00 ms")
    (waited,) = starting(lines, "layer 7 of step 1")
    assert "waited for expert 10.0.0.2:50053, 7.00 ms of 8.00 ms" in waited
    (call,) = starting(lines, "router.expert → expert 10.0.0.2:50053")
    assert call.count("░") > call.count("█") > call.count("▒") > 0
    (row,) = starting(lines, "7 ")
    assert row.split()[:7] == ["7", "6.00", "0.30", "4.00", "0.00", "0.10", "0.60"]
    assert starting(lines, "steps, critical path: wire 75.0%, dense 25.0%")


def test_a_step_and_a_layer_can_be_chosen() -> None:
    trace = Trace.parse(two_steps())
    assert starting(shown(trace, step=0), "step 0: 1 token, 5.00 ms")
    with pytest.raises(NotFound, match="no step 2: it has 0 to 1"):
        shown(trace, step=2)
    with pytest.raises(NotFound, match="no layer 0: it has 7 to 7"):
        shown(trace, layer=0)


def test_a_trace_says_why_it_has_no_layers_and_how_to_get_them() -> None:
    writer = TraceWriter()
    root = writer.span("gateway.generate", "p1", None, 0, 100)
    writer.span("router.step", "p2", root, 0, 50, moesaic__tokens=1)
    text = " ".join(shown(Trace.parse(writer.document())))
    assert "its layers are not traced" in text
    assert "--trace-detail=layer" in text


def test_a_failed_trace_says_status_and_message_and_one_span_is_one_span() -> None:
    writer = TraceWriter()
    told: dict[str, Any] = {"error__type": "DEADLINE_EXCEEDED", "error": True}
    writer.span("gateway.generate", "p1", None, 0, 9, **told, otel__status_description="no time")
    first, second, *_ = shown(Trace.parse(writer.document()))
    assert first.rstrip().endswith("1 span  1 failed")
    assert second.rstrip() == "gateway.generate failed: DEADLINE_EXCEEDED: no time"


def test_a_hung_service_is_named_though_another_one_answered_last() -> None:
    writer = TraceWriter()
    step = writer.span("router.step", "p2", None, 0, 220_000, moesaic__tokens=1)
    blamed: dict[str, Any] = {
        "moesaic__layer": 0,
        "moesaic__straggler": ADDRESSES["p3"],
        "moesaic__straggler_nanos": 200_000_000,
        "moesaic__straggler_failing": "silent",
        "moesaic__straggler_instead": ADDRESSES["p4"],
    }
    layer = writer.span("router.layer", "p2", step, 0, 220_000, **blamed)
    writer.span("router.expert", "p2", layer, 0, 200_000, server__address=ADDRESSES["p3"])
    writer.call(layer, "p4", 200_000, 17_000)
    trace = Trace.parse(writer.document())
    text = " ".join(shown(trace))
    assert f"{ADDRESSES['p3']} did not answer for 200.00 ms of 220.00 ms, expert did it" in text
    (summary,) = summarise_layers(trace)
    assert (summary.straggler, summary.straggler_cost) == (ADDRESSES["p3"], 200_000)


def test_a_layer_that_its_own_router_held_up_is_blamed_on_no_service() -> None:
    writer = TraceWriter()
    step = writer.span("router.step", "p2", None, 0, 9_000, moesaic__tokens=1)
    blamed: dict[str, Any] = {"moesaic__layer": 0, "moesaic__straggler": ADDRESSES["p3"]}
    layer = writer.span("router.layer", "p2", step, 0, 9_000, **blamed)
    writer.span("router.scatter", "p2", layer, 0, 7_000)
    writer.call(layer, "p3", 7_000, 500)
    (told,) = starting(shown(Trace.parse(writer.document())), "layer 0 of step 0")
    assert "router.scatter took 7.00 ms of 9.00 ms; waited for expert 1.50 ms" in told


def test_a_narrow_terminal_has_more_room_for_bars_than_for_names() -> None:
    writer = TraceWriter()
    root = writer.span("anything", "p1", None, 0, 100)
    for index in range(30):
        writer.span("a.name.that.is.quite.long.indeed", "p1", root, index, 1)
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(waterfall(Trace.parse(writer.document())))
    lines = console.export_text().splitlines()
    (more,) = starting(lines, "… 18 more")
    assert len(more) < 80
    assert "in the median" in more
    (bar_line,) = starting(lines, "anything")
    assert bar_line.count("━") >= 32


def test_a_trace_of_anything_else_is_drawn_as_a_tree_and_long_ones_are_cut() -> None:
    writer = TraceWriter()
    root = writer.span("anything", "p1", None, 0, 100)
    for index in range(30):
        writer.span("alike", "p1", root, index, 1)
    lines = shown(Trace.parse(writer.document()))
    assert len(starting(lines, "alike")) == 12
    assert starting(lines, "… 18 more alike")
    with pytest.raises(NotFound, match="no step of it is traced"):
        shown(Trace.parse(writer.document()), step=0)


def test_a_call_is_cut_into_its_parts_and_the_services_span_says_how_the_wire_divides() -> None:
    trace = Trace.parse(two_steps())
    call = next(span for span in trace.spans if span.name == "router.expert")
    (service,) = trace.children(call)

    def parts(segments: Sequence[Stretch]) -> list[tuple[Part | None, float, float]]:
        return [
            (one.part, one.started - call.started, one.ended - call.started) for one in segments
        ]

    served = [(Part.QUEUE, 100), (Part.COMPUTE, 600)]
    for there, segments in ((500, segments_of(call, service)), (1000, segments_of(call))):
        expected, at = [], 0.0
        for part, length in [
            (Part.ENCODE, 300),
            (Part.WIRE, there),
            *served,
            (Part.WIRE, 2000 - there),
        ]:
            expected.append((part, at, at + length))
            at += length
        assert parts(segments) == expected
        assert at == call.duration


def test_each_character_of_a_bar_shows_what_takes_most_of_it() -> None:
    process = Process("p1", "router", "")
    segments = [
        Stretch(process, Part.ENCODE, 0, 1.2),
        Stretch(process, Part.WIRE, 1.2, 5),
        Stretch(process, Part.COMPUTE, 5, 8),
    ]
    assert bar(segments, {process: "cyan"}, 0, 10, 10).plain == "▒░░░░███  "
    assert (
        bar([Stretch(process, None, 9.99, 9.991)], {process: "cyan"}, 0, 10, 10).plain
        == "         ━"
    )


def test_computing_has_the_colour_of_who_computes_and_the_wire_one_of_its_own() -> None:
    trace = Trace.parse(two_steps())
    call = next(span for span in trace.spans if span.name == "router.expert")
    (service,) = trace.children(call)
    colours = {call.process: "blue", service.process: "green"}
    drawn = bar(segments_of(call, service), colours, call.started, call.ended, 60)
    styles = {drawn.plain[span.start]: str(span.style) for span in drawn.spans}
    assert styles["█"] == "green"
    assert styles["░"] not in ("blue", "green")


def test_of_parallel_services_only_the_straggler_counts() -> None:
    (layer,) = summarise_layers(Trace.parse(two_steps()))
    assert (layer.count, layer.duration) == (2, 6_000)
    assert layer.parts[Part.WIRE] == (2_000 + 6_000) / 2
    assert layer.share(Part.WIRE) == pytest.approx(2 / 3)
    assert layer.straggler in ADDRESSES.values()
    assert layer.straggler_count == 1


def test_chrome_events_of_one_lane_lie_apart_or_within_each_other() -> None:
    trace = Trace.parse(two_steps())
    events = chrome_document(trace)["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert {(event["name"], event["ts"], event["dur"]) for event in complete} == {
        (span.name, span.started, span.duration) for span in trace.spans
    }
    lanes: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in complete:
        lanes[event["pid"], event["tid"]].append(event)
    assert len(lanes) == 5  # of the router two: one call goes on beside the other
    for lane in lanes.values():
        for one in lane:
            for other in lane:
                begin, end = sorted((one, other), key=lambda event: (event["ts"], -event["dur"]))
                assert end["ts"] >= begin["ts"] + begin["dur"] or (
                    end["ts"] + end["dur"] <= begin["ts"] + begin["dur"]
                )


def test_chrome_processes_are_named_and_calls_between_them_are_arrows() -> None:
    events = chrome_document(Trace.parse(two_steps()))["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names == [
        "gateway",
        "router",
        "expert 10.0.0.2:50053",
        "expert 10.0.0.1:50053",
    ]  # as they appear
    begun = {event["id"]: event for event in events if event["ph"] == "s"}
    ended = {event["id"]: event for event in events if event["ph"] == "f"}
    assert begun.keys() == ended.keys()
    assert len(begun) == 2 + 4
    assert all(
        begun[one]["pid"] != ended[one]["pid"] and ended[one]["ts"] >= begun[one]["ts"]
        for one in begun
    )


@pytest.mark.parametrize(
    "damage",
    [
        {"spans": []},
        {"spans": [{"spanID": "1"}]},
        {"spans": "none"},
        {"processes": None},
        {"traceID": 3},
    ],
)
def test_what_is_no_trace_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Trace.parse(two_steps() | damage)


def test_spans_that_go_in_a_circle_are_still_shown() -> None:
    writer = TraceWriter()
    for name, parent in (("first", f"{2:016x}"), ("second", f"{1:016x}"), ("own", f"{3:016x}")):
        writer.span(name, "p1", parent, 0, 10)
    trace = Trace.parse(writer.document())
    assert [span.name for span in trace.roots] == ["first", "own"]
    assert starting(shown(trace), "second")


def test_spans_of_one_id_are_still_shown_once_each() -> None:
    writer = TraceWriter()
    root = writer.span("root", "p1", None, 0, 10)
    for name in ("one", "other"):
        writer.span(name, "p1", root, 1, 5)
    below = writer.span("below", "p1", f"{2:016x}", 2, 3)
    document = writer.document()
    for span in document["spans"][1:]:
        if span["spanID"] == below:
            span["spanID"] = root  # its own ancestor's
    trace = Trace.parse(document)
    assert [span.name for span in trace.roots] == ["root"]
    assert len(trace.spans) == 4
    lines = shown(trace)
    for name in ("root", "one", "other", "below"):
        assert len(starting(lines, f"{name} ")) == 1, name
    drawn = [event for event in chrome_document(trace)["traceEvents"] if event["ph"] == "X"]
    assert len(drawn) == 4


def test_a_file_is_read_and_written_in_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, copy = tmp_path / "trace.json", tmp_path / "copy.json"
    source.write_text(json.dumps({"data": [two_steps()]}), encoding="utf-8")
    assert command(["--file", str(source)]) == 0
    drawn = capsys.readouterr().out
    assert "step 1: 1 token, 10.00 ms" in drawn
    assert command(["--file", str(source), "--format", "jaeger", "--output", str(copy)]) == 0
    assert json.loads(copy.read_text(encoding="utf-8")) == {"data": [two_steps()]}
    assert command(["--file", str(copy), "--output", str(copy)]) == 0
    assert copy.read_text(encoding="utf-8").split() == drawn.split()
    assert command(["--file", str(source), "--format", "chrome"]) == 0
    assert json.loads(capsys.readouterr().out)["otherData"] == {"traceID": TRACE_ID}
    assert command(["ffff", "--file", str(source)]) == 1
    assert "no such trace" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data": 3}', '{"data": [{}]}', "[" * 100_000])
def test_a_file_of_anything_else_is_told_in_a_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    assert command(["--file", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--from", "localhost:"],
        ["--where", "key"],
        [TRACE_ID, "--last"],
        ["--where", "a=b", "--file", "x"],
    ],
)
def test_flags_that_mean_nothing_are_refused(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        command(flags)
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.startswith("moesaic trace: ")


async def test_traces_are_asked_for_by_id_by_attribute_or_as_the_latest() -> None:
    def record(tracer: Tracer) -> None:
        for number in range(2):
            tracer.start_span("gateway.generate", attributes={"number": number}).end()

    async with tracing_client() as tracing:
        await tracing.export("gateway", record)
        client = QueryClient(tracing.url, timeout_seconds=10)
        latest = await client.latest("gateway", {})
        assert latest.spans[0].number("number") == 1
        assert (await client.trace(latest.trace_id)).spans == latest.spans
        assert (await client.latest("gateway", {"number": "0"})).spans[0].number("number") == 0
        with pytest.raises(NotFound, match="no trace of gateway with number=2"):
            await client.latest("gateway", {"number": "2"})
        assert (await client.latest("", {"number": "0"})).spans[0].number("number") == 0
        with pytest.raises(NotFound, match="no trace abc"):
            await client.trace("abc")
        with pytest.raises(InvalidRequest, match="no trace id"):
            await client.trace("../x")
    with pytest.raises(Unavailable, match="nothing listens on"):
        await client.latest("gateway", {})
