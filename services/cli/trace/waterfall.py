"""A trace in the terminal: the request, its slowest step and that step's slowest layer, each on a
scale of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice

from rich.console import Group, RenderableType
from rich.text import Text

from services.cli.trace.bars import COLOURS, legend
from services.cli.trace.panel import Panel, Row
from services.cli.trace.summary import layer_table, step_line
from services.traces.durations import counted, millis
from services.traces.layers import service_span, straggler_of
from services.traces.model import Span, Trace
from services.traces.parts import CALL, STEP, Stretch, segments_of
from services.traces.processes import labels_of, names_of_addresses
from services.traces.verdict import (
    NO_LAYERS,
    failure_of,
    is_cancelled,
    layer_sentence,
    layers_of,
    steps_in_detail,
)
from services.wire.errors import NotFound

# Of siblings of one name this many are shown, then the rest is a line: a request has as many steps
# as tokens.
MAX_ALIKE = 12
MAX_ROWS = 400
MAX_DEPTH = 60
MICROS_PER_SECOND = 1_000_000


def waterfall(trace: Trace, *, step: int | None = None, layer: int | None = None) -> RenderableType:
    """What the command prints. `step` counts the steps whose layers are traced, from 0, `layer` is
    a layer's number; without them it is the slowest one.

    Raises NotFound for a step or a layer that the trace has not.
    """
    return Group(*_Waterfall(trace).lines(step, layer))


class _Waterfall:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._labels = labels_of(trace)
        self._colours = {
            process: COLOURS[index % len(COLOURS)] for index, process in enumerate(self._labels)
        }
        self._names = names_of_addresses(trace)

    def lines(self, step: int | None, layer: int | None) -> Iterator[RenderableType]:
        trace = self._trace
        yield self._headline()
        failure = failure_of(trace)
        if failure is not None:
            yield Text(failure[0], "bright_black" if is_cancelled(trace) else "red")
        yield self._services()
        yield legend()
        yield Text()
        yield Panel([*self._request()], self._colours, trace.started, trace.ended)
        steps = steps_in_detail(trace)
        if steps or step is not None or layer is not None:
            number = _chosen("step", steps, step)
            yield from self._step_in_detail(number, steps[number], layer)
        elif trace.named(STEP):
            yield Text(f"\n{NO_LAYERS}", "dim")
        for summary in (layer_table(trace), step_line(trace)):
            if summary is not None:
                yield Text()
                yield summary

    def _headline(self) -> Text:
        trace = self._trace
        began = datetime.fromtimestamp(trace.started / MICROS_PER_SECOND, UTC)
        text = Text().append(f"trace {trace.trace_id}", "bold")
        text.append(
            f"  {began:%Y-%m-%d %H:%M:%S} UTC  {millis(trace.ended - trace.started)}  "
            f"{counted(len(trace.spans), 'span')}"
        )
        num_failed = sum(span.is_error for span in trace.spans)
        return text.append(f"  {num_failed} failed" if num_failed else "", "red")

    def _services(self) -> Text:
        text = Text()
        for process, label in self._labels.items():
            text.append("━ ", self._colours[process]).append(f"{label}   ")
        return text

    def _request(self) -> Iterator[Row]:
        rows = (row for root in self._trace.roots for row in self._rows(root, below_steps=False))
        yield from islice(rows, MAX_ROWS)
        if next(rows, None) is not None:
            yield Row(
                0, None, "… and more: --format chrome or jaeger writes it whole, for a viewer"
            )

    def _step_in_detail(
        self, index: int, step: Span, layer: int | None
    ) -> Iterator[RenderableType]:
        layers = {span.number("moesaic.layer") or 0: span for span in layers_of(self._trace, step)}
        number = _chosen("layer", layers, layer)
        chosen = layers[number]
        yield Text(f"\nstep {index}: {_tokens(step)}, {millis(step.duration)}", "bold")
        rows = [
            Row(0, span, f"{each}", [*self._layer_segments(span)]) for each, span in layers.items()
        ]
        yield Panel(rows, self._colours, step.started, step.ended)
        yield Text(f"\n{layer_sentence(self._trace, index, chosen, self._names)}", "bold")
        inner = [*self._rows(chosen)]
        ended = max(row.span.ended for row in inner if row.span is not None)
        yield Panel(inner, self._colours, chosen.started, ended)

    def _rows(self, span: Span, depth: int = 0, *, below_steps: bool = True) -> Iterator[Row]:
        yield Row(
            depth, span, self._remark(span), segments_of(span, service_span(self._trace, span))
        )
        if depth == MAX_DEPTH or (span.name == STEP and not below_steps):
            return
        alike: dict[str, list[int]] = {}
        for child in self._trace.children(span):
            durations = alike.setdefault(child.name, [])
            durations.append(child.duration)
            if len(durations) <= MAX_ALIKE:
                yield from self._rows(child, depth + 1, below_steps=below_steps)
        for name, durations in alike.items():
            rest = sorted(durations[MAX_ALIKE:])
            if rest:
                yield Row(
                    depth + 1,
                    None,
                    f"… {len(rest)} more {name}",
                    beside=f"{millis(rest[len(rest) // 2])} in the median",
                )

    def _layer_segments(self, layer: Span) -> Iterable[Stretch]:
        straggler = straggler_of(self._trace, layer)
        if straggler is None:
            yield Stretch(layer.process, None, layer.started, layer.ended)
            return
        yield Stretch(layer.process, None, layer.started, straggler.started)
        yield from segments_of(straggler, service_span(self._trace, straggler))
        yield Stretch(layer.process, None, straggler.ended, layer.ended)

    def _remark(self, span: Span) -> str:
        if span.name == CALL:
            attempt = span.number("moesaic.attempt") or 1
            return f"→ {self._callee(span)}{f', attempt {attempt}' if attempt > 1 else ''}"
        if span.name == STEP:
            kept = f", {span.text('moesaic.kept')}" if "moesaic.kept" in span.tags else ""
            return f"{_tokens(span)}{kept}" if "moesaic.tokens" in span.tags else "in another trace"
        return ""

    def _callee(self, call: Span) -> str:
        address = call.text("server.address")
        return self._names.get(address, address)


def _chosen(what: str, spans: Mapping[int, Span], number: int | None) -> int:
    if number is None and spans:
        return max(spans, key=lambda each: spans[each].duration)
    if number is None or number not in spans:
        held = (
            f"it has {min(spans)} to {max(spans)}"
            if spans
            else f"no {what} of it is traced to its layers"
        )
        raise NotFound(f"the trace has no {what} {number or 0}: {held}")
    return number


def _tokens(step: Span) -> str:
    tokens, sequences = step.number("moesaic.tokens") or 0, step.number("moesaic.sequences") or 1
    return (
        f"{tokens} token{'s' * (tokens != 1)}{f' of {sequences} requests' if sequences > 1 else ''}"
    )
