"""How deep sequences and their steps are traced: what was asked for, a small share of time, and
what went wrong.
"""

import time
from dataclasses import dataclass

from services.router.engine.sequence import Order, Sequence, SequenceTrace, TraceDetail
from services.runtime.span_writing import SpanKind, encode_span
from services.runtime.tracing import recorder, wall_offset

# What the layers' share of time may run ahead: a first request is traced to its layers, and one
# after a pause.
BURST_NANOS = 1_000_000_000
# A step is slow when it takes this many times as long as steps of its size do in the mean, of at
# least so many.
SLOW_FACTOR = 3.0
LEAST_STEPS = 32
WEIGHT = 1 / 32


class LayerShare:
    """Chooses single requests to be traced to their layers, for `share` of the time in the long
    run.
    """

    def __init__(self, share: float, now: int) -> None:
        self._share = share
        self._credit, self._counted = float(BURST_NANOS) if share else 0.0, now
        self._is_in_use = False

    def choose(self, now: int) -> bool:
        """Whether a request that begins now is to be traced so; it is to be given back
        at its end.
        """
        self._credit = min(BURST_NANOS, self._credit + self._share * (now - self._counted))
        self._counted = now
        if self._is_in_use or self._credit <= 0:
            return False
        self._is_in_use = True
        return True

    def spend(self, nanos: int) -> None:
        """A step of the chosen request took so long."""
        self._credit -= nanos

    def give_back(self) -> None:
        """The chosen request has ended."""
        self._is_in_use = False


class UsualSteps:
    """What steps take in the mean, by their size."""

    def __init__(self) -> None:
        self._means: dict[
            int, tuple[int, float]
        ] = {}  # by the bits of the number of tokens: steps, nanoseconds

    def is_slow(self, num_tokens: int, nanos: int) -> bool:
        """Whether a step took far longer than others of its size; it counts as one of them from
        here on.
        """
        size = num_tokens.bit_length()
        count, mean = self._means.get(size, (0, 0.0))
        self._means[size] = count + 1, mean + max(WEIGHT, 1 / (count + 1)) * (nanos - mean)
        return count >= LEAST_STEPS and nanos > SLOW_FACTOR * mean


@dataclass(frozen=True)
class TracePolicy:
    """What an engine traces with; `default` is for requests that ask for no depth."""

    default: TraceDetail
    layers: LayerShare
    usual: UsualSteps

    @classmethod
    def of(cls, default: TraceDetail, *, layers_share: float) -> "TracePolicy":
        """Tracing to a depth by default, and to the layers for a share of the time."""
        return cls(default, LayerShare(layers_share, time.perf_counter_ns()), UsualSteps())

    def begin(self, order: Order) -> SequenceTrace | None:
        """What a sequence that is taken in now is traced as; None where nobody records it."""
        parent = order.trace_parent
        if recorder() is None or parent is None or not parent.is_sampled:
            return None
        detail, is_chosen = order.trace_detail or self.default, False
        if (
            not order.trace_detail
            and detail is TraceDetail.STEP
            and self.layers.choose(time.perf_counter_ns())
        ):
            detail, is_chosen = TraceDetail.LAYER, True
        return SequenceTrace(parent.child(), parent.span_id, detail, is_chosen)

    def end(self, sequence: Sequence) -> None:
        """Record a sequence that has ended: `router.sequence`, with where its time went."""
        trace, recording = sequence.trace, recorder()
        if trace is None or recording is None:
            return
        if trace.is_chosen:
            self.layers.give_back()
        recording.put((_encode(sequence, trace),))


def _encode(sequence: Sequence, trace: SequenceTrace) -> bytes:
    receipt, ending, ended = sequence.receipt, sequence.ending, time.perf_counter_ns()
    attributes: dict[str, str | int] = {
        "gen_ai.usage.input_tokens": len(sequence.order.prompt),
        "gen_ai.usage.output_tokens": len(sequence.generated),
        "moesaic.prefill_steps": receipt.prefill.steps,
        "moesaic.decode_steps": receipt.decode.steps,
        "moesaic.retries": receipt.retries,
        "moesaic.hedges": receipt.hedges,
    }
    for part, nanos in vars(receipt.prefill.parts).items():
        attributes[f"moesaic.{part}_nanos"] = nanos + getattr(receipt.decode.parts, part)
    if receipt.slowest_service is not None:
        service, layers = receipt.slowest_service
        attributes |= {"moesaic.straggler": service, "moesaic.straggler_layers": layers}
    offset = wall_offset()
    return encode_span(
        "router.sequence",
        SpanKind.SERVER,
        trace.span,
        trace.parent_id,
        receipt.received + offset,
        ended + offset,
        attributes,
        error=None if ending is None or ending.error is None else str(ending.error),
    )
