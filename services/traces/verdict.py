"""What a trace comes to, in words: whom its layers waited for, and why it failed.

The terminal and the page show these very sentences.
"""

from collections.abc import Mapping

from services.traces.durations import millis
from services.traces.layers import straggler_cost, straggler_of
from services.traces.model import Span, Trace

NO_LAYERS = (
    "its layers are not traced; `moesaic serve --tracing` traces them always, `moesaic generate "
    "--tracing` those of its request, and a router those of all with --trace-detail=layer"
)
CANCELLED = "CANCELLED"
_FAILINGS = {"silent": "did not answer", "refused": "did not compute it"}


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
        return f"waited for {name}, {cost} of {whole}"
    instead = layer.text("moesaic.straggler_instead")
    return f"{name} {failing} for {cost} of {whole}" + (
        f", {names.get(instead, instead)} did it" if instead else ""
    )


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
