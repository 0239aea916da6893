"""What a trace comes to, in words: whom its layers waited for, and why it failed.

The terminal and the page show these very sentences.
"""

from collections.abc import Mapping

from services.traces.durations import millis
from services.traces.layers import straggler_cost, straggler_of
from services.traces.model import Span, Trace

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
