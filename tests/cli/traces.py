"""A trace as Jaeger writes it: a request of two steps, each of a layer with two services."""

from typing import Any

TRACE_ID, BEGAN = "0af7651916cd43dd8448eb211c80319c", 1_700_000_000_000_000
PROCESSES = {"p1": "gateway", "p2": "router", "p3": "expert", "p4": "expert"}
ADDRESSES = {"p3": "10.0.0.1:50053", "p4": "10.0.0.2:50053"}


class TraceWriter:
    """Collects spans; times are microseconds, a start counts from the trace's."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    def span(
        self,
        name: str,
        process: str,
        parent: str | None,
        start: int,
        duration: int,
        **tags: str | int | bool,
    ) -> str:
        """Write a span; an underscore in a tag's name that stands for a dot is written twice. Its
        id.
        """
        span_id = f"{len(self.spans) + 1:016x}"
        references = (
            [{"refType": "CHILD_OF", "traceID": TRACE_ID, "spanID": parent}] if parent else []
        )
        kinds: dict[type, str] = {str: "string", bool: "bool", int: "int64"}
        self.spans.append(
            {
                "traceID": TRACE_ID,
                "spanID": span_id,
                "operationName": name,
                "references": references,
                "startTime": BEGAN + start,
                "duration": duration,
                "tags": [
                    {"key": key.replace("__", "."), "type": kinds[type(value)], "value": value}
                    for key, value in tags.items()
                ],
                "logs": [],
                "processID": process,
                "warnings": None,
            }
        )
        return span_id

    def call(self, layer: str, process: str, start: int, wire: int) -> None:
        """A call of 1000 µs besides the wire, of which 300 are encoding, 100 queue and
        600 compute.
        """
        parts = {"moesaic__wire_nanos": wire * 1000, "moesaic__encode_nanos": 300_000}
        parts |= {"moesaic__queue_nanos": 100_000, "moesaic__compute_nanos": 600_000}
        address = ADDRESSES[process]
        call = self.span(
            "router.expert", "p2", layer, start, 1000 + wire, server__address=address, **parts
        )
        served = {"moesaic__queue_nanos": 100_000, "moesaic__compute_nanos": 600_000}
        self.span("expert.compute", process, call, start + 300 + wire // 4, 700, **served)

    def document(self) -> dict[str, Any]:
        """The trace."""
        processes = {
            name: {"serviceName": service, "tags": []} for name, service in PROCESSES.items()
        }
        return {"traceID": TRACE_ID, "spans": self.spans, "processes": processes, "warnings": None}


def two_steps() -> dict[str, Any]:
    """The trace; in the first step the first service is waited for, in the second, slower one the
    second.
    """
    writer = TraceWriter()
    root = writer.span("gateway.generate", "p1", None, 0, 20_000)
    for index, slow in enumerate((1, 2)):
        start = 1_000 + index * 6_000
        sums = {"moesaic__wire_nanos": 3_000_000 * slow, "moesaic__dense_nanos": 1_000_000 * slow}
        step = writer.span(
            "router.step", "p2", root, start, 5_000 * slow, moesaic__tokens=1, **sums
        )
        straggler = ADDRESSES["p3" if slow == 1 else "p4"]
        layer = writer.span(
            "router.layer",
            "p2",
            step,
            start,
            4_000 * slow,
            moesaic__layer=7,
            moesaic__straggler=straggler,
        )
        writer.call(layer, "p3", start, 2_000)
        writer.call(layer, "p4", start, 1_000 if slow == 1 else 6_000)
    return writer.document()
