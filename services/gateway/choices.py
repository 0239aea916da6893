"""The continuations of one prompt: each is a sequence of its own, with a seed of its own."""

from collections.abc import Sequence as Sequenced
from dataclasses import replace

from services.gateway.admission import Place
from services.gateway.sequence import Order, Sequence
from services.wire.sampling import MAX_SEED


def sequences_of(
    order: Order, places: Sequenced[Place], *, now_nanos: int, generated: Sequenced[int] = ()
) -> list[Sequence]:
    """A sequence for each place. The first one draws as the order says, each other one with the
    next seed.
    """
    orders = [order, *(_choice(order, index) for index in range(1, len(places)))]
    return [
        Sequence(each, place, now_nanos=now_nanos, generated=generated)
        for each, place in zip(orders, places, strict=True)
    ]


def _choice(order: Order, index: int) -> Order:
    seed = (order.sampling.seed + index) % (MAX_SEED + 1)
    return replace(order, sampling=replace(order.sampling, seed=seed))
