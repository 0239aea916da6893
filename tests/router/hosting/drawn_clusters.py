"""Clusters drawn at random, for properties that hold whatever is hosted where."""

from collections.abc import Sequence

from hypothesis import strategies as st

from services.router.planning.host import Host
from services.wire.expert_key import ExpertKey


@st.composite
def clusters(draw: st.DrawFn, experts: Sequence[ExpertKey]) -> list[Host]:
    """Services of any size that host anything that fits, some of it on its way in or out."""
    hosts = []
    for index in range(draw(st.integers(1, 5))):
        num_slots = draw(st.integers(1, 30))
        keys = draw(st.lists(st.sampled_from(experts), max_size=num_slots, unique=True))
        first, second = sorted(
            draw(st.tuples(*[st.integers(max(0, len(keys) - 3), len(keys))] * 2))
        )
        hosted, loading, retiring = (
            frozenset(part) for part in (keys[:first], keys[first:second], keys[second:])
        )
        takes, is_draining = (
            draw(st.sampled_from([True, True, False])),
            draw(st.sampled_from([False, False, True])),
        )
        hosts.append(
            Host(
                f"{index}",
                num_slots,
                hosted,
                loading,
                retiring,
                is_draining=is_draining,
                takes=takes,
            )
        )
    return hosts
