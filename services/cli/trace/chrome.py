"""A trace in Chrome's trace-event format, as Perfetto and chrome://tracing open it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from services.traces.model import Process, Span, Trace
from services.traces.processes import labels_of

ChromeEvent = dict[str, Any]


def chrome_document(trace: Trace) -> dict[str, Any]:
    """Complete events, one process of the viewer for each process, and arrows where a call goes
    from one to another.
    """
    labels = labels_of(trace)
    processes = {process: number for number, process in enumerate(labels, start=1)}
    lanes = _lanes(trace)
    used = {(processes[span.process], lanes[span.position]) for span in trace.spans}
    events = [*_names({number: labels[process] for process, number in processes.items()}, used)]
    for span in trace.spans:
        events.append(_complete(span, processes[span.process], lanes[span.position]))
    events.extend(_arrows(trace, processes, lanes))
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"traceID": trace.trace_id},
    }


def _complete(span: Span, process: int, lane: int) -> ChromeEvent:
    return {
        "name": span.name,
        "cat": span.process.service,
        "ph": "X",
        "ts": span.started,
        "dur": span.duration,
        "pid": process,
        "tid": lane,
        "args": {**span.tags, "spanID": span.span_id},
    }


def _names(labels: Mapping[int, str], lanes: Iterable[tuple[int, int]]) -> Iterator[ChromeEvent]:
    for number, label in labels.items():
        yield {"name": "process_name", "ph": "M", "pid": number, "args": {"name": label}}
        yield {
            "name": "process_sort_index",
            "ph": "M",
            "pid": number,
            "args": {"sort_index": number},
        }
    for number, lane in sorted(lanes):
        yield {
            "name": "thread_name",
            "ph": "M",
            "pid": number,
            "tid": lane,
            "args": {"name": f"lane {lane}"},
        }


def _arrows(
    trace: Trace, processes: dict[Process, int], lanes: dict[int, int]
) -> Iterator[ChromeEvent]:
    for parent in trace.spans:
        for child in trace.children(parent):
            if child.process == parent.process:
                continue
            shared = {"name": "call", "cat": "call", "id": child.span_id}
            for kind, span, extra in (("s", parent, {}), ("f", child, {"bp": "e"})):
                # An arrow is fastened to the event around its time, so that it begins no earlier
                # than the parent.
                time = min(max(child.started, span.started), span.ended)
                place = {"pid": processes[span.process], "tid": lanes[span.position]}
                yield {**shared, "ph": kind, "ts": time, **place, **extra}


def _lanes(trace: Trace) -> dict[int, int]:
    """A lane for each span, by its position: what a viewer draws within an event of the same lane
    has to be below it.
    """
    parents = {child.position: parent for parent in trace.spans for child in trace.children(parent)}
    stacks: dict[Process, list[list[Span]]] = {}
    lanes: dict[int, int] = {}
    for span in trace.spans:
        mine = stacks.setdefault(span.process, [])
        lane = next(
            (number for number, stack in enumerate(mine) if _fits(stack, span, parents)), len(mine)
        )
        if lane == len(mine):
            mine.append([])
        mine[lane].append(span)
        lanes[span.position] = lane + 1
    return lanes


def _fits(stack: list[Span], span: Span, parents: Mapping[int, Span]) -> bool:
    while stack and stack[-1].ended <= span.started:
        stack.pop()
    if not stack:
        return True
    around, above = stack[-1], parents.get(span.position)
    while above is not None and above is not around:
        above = parents.get(above.position)
    return above is around and span.ended <= around.ended
