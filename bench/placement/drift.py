"""What a change of topic costs: what is moved for it, and the imbalance that this takes away."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.placement.cluster import Cluster
from bench.placement.replay import judge
from bench.placement.traffic import halves
from services.router.load.recording import Recording


@dataclass(frozen=True)
class Drift:
    """One change of topic: the new one's imbalance as services host the old one's plan, and after
    the new plan.
    """

    topic: str
    before: float
    after: float
    num_loads: int


def drifts(start: Cluster, strategy: str, topics: Sequence[Recording]) -> list[Drift]:
    """A strategy through topics in their order and back to the first, whose first plan is made
    before it is counted.

    Every plan is made by the first half of its topic's text from what is hosted then, and judged on
    the other half.
    """
    cluster = start.planned(strategy, halves(topics[0])[0].load()).cluster
    found = []
    for topic in [*topics[1:], topics[0]]:
        seen, to_judge = halves(topic)
        before = judge(cluster, to_judge).imbalance
        planned = cluster.planned(strategy, seen.load())
        cluster = planned.cluster
        found.append(
            Drift(topic.topic, before, judge(cluster, to_judge).imbalance, planned.num_loads)
        )
    return found


def removed(found: Sequence[Drift]) -> float:
    """The imbalance that was taken away, summed over drifts."""
    return sum(drift.before - drift.after for drift in found)


def bytes_per_point(found: Sequence[Drift], expert_bytes: int) -> float | None:
    """Bytes moved for each hundredth of imbalance taken away; None where none was."""
    points = removed(found) * 100
    return sum(drift.num_loads for drift in found) * expert_bytes / points if points > 0 else None
