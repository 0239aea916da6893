"""What a trace comes to, in words: whom its layers waited for, and why it failed.

The terminal and the page show these very sentences.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.traces.durations import counted, millis
from services.traces.heat import costliest, heat_of
from services.traces.layers import straggler_cost, straggler_of
from services.traces.model import Span, Trace
from services.traces.parts import CALL, LAYER, STEP
from services.traces.processes import names_of_addresses

NO_LAYERS = (
    "its layers are not traced; `moesaic serve --tracing` traces them always, `moesaic generate "
    "--tracing` those of its request, and a router those of all with --trace-detail=layer"
)
CANCELLED = "CANCELLED"
GATHER = "router.gather"
_FAILINGS = {"silent": "did not answer", "refused": "did not compute it"}


@dataclass(frozen=True)
class Sentence:
    """Something that a trace comes to, and the span that shows it, if one does."""

    text: str
    span: Span | None = None


def verdict(trace: Trace) -> list[Sentence]:
    """Which layer was the slowest and why, and who cost the layers most in all; of a trace without
    layers how to get them.
    """
    names = names_of_addresses(trace)
    step = slowest(steps_in_detail(trace).items())
    if step is None:
        return [Sentence(NO_LAYERS)] if trace.named(STEP) else []
    layer = max(layers_of(trace, step[1]), key=lambda span: span.duration)
    told = [Sentence(layer_sentence(trace, step[0], layer, names), layer)]
    cells = heat_of(trace)
    most = costliest(cells)
    if most is not None:
        address, count, cost = most
        num_layers = counted(len(trace.named(LAYER)), "layer")
        worst = max(
            (cell for cell in cells if cell.address == address), key=lambda cell: cell.worst_cost
        ).worst
        name = names.get(address, address)
        text = f"of all services {name} cost most: {millis(cost)}, straggler of {count:,} of"
        told.append(Sentence(f"{text} {num_layers}", worst))
    return told


def layer_sentence(trace: Trace, step: int, layer: Span, names: Mapping[str, str]) -> str:
    """Whom this layer of the step of that number waited for."""
    number = layer.number("moesaic.layer") or 0
    return f"layer {number} of step {step}: {waited_for(trace, layer, names)}"


def steps_in_detail(trace: Trace) -> dict[int, Span]:
    """The steps that have layers, numbered from 0."""
    steps = [span for span in trace.named(STEP) if layers_of(trace, span)]
    return dict(enumerate(steps))


def layers_of(trace: Trace, step: Span) -> list[Span]:
    """The step's layers, by their start."""
    return [span for span in trace.children(step) if span.name == LAYER]


def slowest(spans: Iterable[tuple[int, Span]]) -> tuple[int, Span] | None:
    """The longest of numbered spans."""
    return max(spans, key=lambda one: one[1].duration, default=None)


def waited_for(trace: Trace, layer: Span, names: Mapping[str, str]) -> str:
    """Whom a layer waited for, how long and of how much; `names` are of services by address."""
    call, whole = straggler_of(trace, layer), millis(layer.duration)
    address = layer.text("moesaic.straggler") or (call.text("server.address") if call else "")
    if not address:
        nanos = layer.number("moesaic.straggler_nanos")
        return (
            f"waited {millis(nanos / 1_000)} for anybody to ask" if nanos else "waited for nobody"
        )
    name = names.get(address, address)
    cost = millis(straggler_cost(layer, layer if call is None else call))
    failing = _FAILINGS.get(layer.text("moesaic.straggler_failing"))
    if failing is None:
        own = _own_part(trace, layer)
        if own is not None and own.duration > layer.duration / 2:
            return f"{own.name} took {millis(own.duration)} of {whole}; waited for {name} {cost}"
        return f"waited for {name}, {cost} of {whole}"
    instead = layer.text("moesaic.straggler_instead")
    return f"{name} {failing} for {cost} of {whole}" + (
        f", {names.get(instead, instead)} did it" if instead else ""
    )


def _own_part(trace: Trace, layer: Span) -> Span | None:
    """The longest of what the layer's own process did besides to wait."""
    own = [span for span in trace.children(layer) if span.name not in (CALL, GATHER)]
    return max(own, key=lambda span: span.duration, default=None)


def is_cancelled(trace: Trace) -> bool:
    """Whether the client left: that is no fault."""
    return any(
        root.is_error and CANCELLED in (root.text("error.type"), _message(root)[:9].upper())
        for root in trace.roots
    )


def failure_of(trace: Trace) -> tuple[str, Span] | None:
    """Why the request failed, or what failed while it went on, and the span that says so; None
    where nothing did.
    """
    failed = [span for span in trace.spans if span.is_error]
    if not failed:
        return None
    told = next((span for span in failed if span in trace.roots), None)
    if told is not None:
        status = told.text("error.type")
        message = _message(told)
        said = ": ".join(dict.fromkeys(part for part in (status, message) if part))
        how = "was cancelled" if is_cancelled(trace) else "failed"
        return f"{told.name} {how}: {said or status or 'nothing says why'}", told
    said = _message(failed[0]) or "nothing says why"
    others = f", and {len(failed) - 1} more spans" if len(failed) > 1 else ""
    return f"{failed[0].name} failed{others}, and the request went on: {said}", failed[0]


def _message(span: Span) -> str:
    return span.text("otel.status_description")
