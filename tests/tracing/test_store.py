"""The store stays within its limits, and gives up what is oldest first."""

from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.tracing.spans import source_of
from services.tracing.store import SpanStore

SOURCE = source_of(Resource())


def span(trace: int, number: int = 1, name: str = "one") -> Span:
    return Span(
        trace_id=bytes([trace] * 16),
        span_id=number.to_bytes(8, "big"),
        name=name,
        start_time_unix_nano=trace,
    )


def kept(store: SpanStore) -> list[int]:
    return sorted(trace.trace_id[0] for trace in store.latest_first())


def test_of_too_many_traces_the_one_that_nothing_came_to_for_longest_goes() -> None:
    store = SpanStore(max_traces=2, max_bytes=1 << 20)
    for trace in (1, 2):
        assert store.add(SOURCE, ("", ""), span(trace))
    assert store.add(SOURCE, ("", ""), span(1, 2))
    assert store.add(SOURCE, ("", ""), span(3))
    assert kept(store) == [1, 3]
    stored = store.get(span(1).trace_id)
    assert stored is not None and len(stored.spans) == 2


def test_memory_is_bounded_by_giving_up_whole_traces() -> None:
    store = SpanStore(max_traces=1000, max_bytes=10_000)
    for trace in range(1, 101):
        assert store.add(SOURCE, ("", ""), span(trace, name="x" * 500))
        assert store.num_bytes <= 10_000
        assert store.num_bytes == sum(one.num_bytes for one in store.latest_first())
    assert kept(store) == list(range(101 - len(kept(store)), 101))
    assert len(kept(store)) > 5


def test_one_trace_cannot_drive_out_the_others() -> None:
    store = SpanStore(max_traces=1000, max_bytes=10_000)
    assert store.add(SOURCE, ("", ""), span(1))
    taken = [store.add(SOURCE, ("", ""), span(2, number, "x" * 500)) for number in range(1, 50)]
    assert taken[0]
    assert not taken[-1]
    assert kept(store) == [1, 2]
    stored = store.get(span(2).trace_id)
    assert stored is not None and stored.num_bytes <= 2_500
