"""What a span's own figures say of where its time went: communication told apart from computing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from services.traces.model import Process, Span

CALL, COMPUTE, LAYER, STEP = "router.expert", "expert.compute", "router.layer", "router.step"
NANOS_PER_MICRO = 1_000


class Part(Enum):
    """A kind of time: the way there and back, waiting at the service, computing, or turning rows
    into bytes.
    """

    ENCODE = "encode"
    WIRE = "wire"
    DECODE = "decode"
    QUEUE = "queue"
    COMPUTE = "compute"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of one kind, or of none where nothing was measured, and whose it is; microseconds
    since 1970.
    """

    process: Process
    part: Part | None
    started: float
    ended: float


def nanos_of(span: Span, part: Part) -> int:
    """What the span says of the part, in nanoseconds; 0 where it says nothing."""
    return span.number(f"moesaic.{part.value}_nanos") or 0


def segments_of(span: Span, service: Span | None = None) -> Sequence[Stretch]:
    """The span cut into its parts; of a call `service` is the span that the service recorded of it,
    if any.

    Of the wire only the sum of both ways is measured, for no clock is shared. Where the service's
    span lies within the call it says how the sum divides, else both ways are drawn alike.
    """
    nanos = {part: nanos_of(span, part) for part in Part}
    if not any(nanos.values()) or span.name not in (
        CALL,
        COMPUTE,
    ):  # the parts of others are sums over many calls
        return [Stretch(span.process, part_named(span.name), span.started, span.ended)]
    return list(_laid_out(span, nanos, service))


def part_named(name: str) -> Part | None:
    """The part that a span is as a whole, by the last word of its name."""
    last = name.rpartition(".")[2]
    return Part(last) if last in {part.value for part in Part} else None


def _laid_out(span: Span, nanos: Mapping[Part, int], service: Span | None) -> Iterator[Stretch]:
    began = float(span.started)
    computing = span.process if service is None else service.process
    for part, length in _in_order(span, nanos, service):
        if length:
            ended = began + length / NANOS_PER_MICRO
            yield Stretch(computing if part is Part.COMPUTE else span.process, part, began, ended)
            began = ended
    if began < span.ended:
        yield Stretch(span.process, None, began, span.ended)


def _in_order(
    span: Span, nanos: Mapping[Part, int], service: Span | None
) -> Sequence[tuple[Part, float]]:
    at_service = [(part, nanos[part]) for part in (Part.DECODE, Part.QUEUE, Part.COMPUTE)]
    wire, encode = nanos[Part.WIRE], nanos[Part.ENCODE]
    if not wire:
        return [*at_service, (Part.ENCODE, encode)]
    there = wire / 2
    if service is not None:
        seen = (service.started - span.started) * NANOS_PER_MICRO - encode
        there = seen if 0 <= seen <= wire else there
    return [(Part.ENCODE, encode), (Part.WIRE, there), *at_service, (Part.WIRE, wire - there)]
