"""What each process of a trace is called: its service, and its address where it shares the service
with others.
"""

from collections import Counter
from collections.abc import Mapping

from services.traces.model import Process, Trace

INSTANCE_DIGITS = 6


def labels_of(trace: Trace) -> Mapping[Process, str]:
    """A label for each process, in the order in which they first appear; no two are the same."""
    processes = list(dict.fromkeys(span.process for span in trace.spans))
    count = Counter(process.service for process in processes)
    addresses = _addresses(trace)
    labels: dict[Process, str] = {}
    for process in processes:
        label = process.service
        if count[process.service] > 1:
            place = (
                addresses.get(process) or process.instance[:INSTANCE_DIGITS] or process.process_id
            )
            label = f"{process.service} {place}"
        labels[process] = label if label not in labels.values() else f"{label} {process.process_id}"
    return labels


def names_of_addresses(trace: Trace) -> Mapping[str, str]:
    """The label of the process that was reached at each address, as far as it recorded
    something.
    """
    labels = labels_of(trace)
    return {address: labels[process] for process, address in _addresses(trace).items()}


def _addresses(trace: Trace) -> Mapping[Process, str]:
    # A process does not know by which address it is called; its callers do.
    return {
        child.process: address
        for parent in trace.spans
        if (address := parent.text("server.address"))
        for child in trace.children(parent)
        if child.process != parent.process
    }
