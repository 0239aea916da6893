"""What a disturbance did to the requests that met it: how many failed or were altered, and the
longest gap.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.harness.table import Table
from bench.hosting.streams import Answer
from bench.hosting.truth import Faults

HEADINGS = ("event", "requests", "failed", "altered", "longest gap s", "retries", "lost", "invalid")


@dataclass(frozen=True)
class Window:
    """When something was done, on the clock of time.perf_counter, up to when all was as before."""

    event: str
    began: float
    ended: float
    num_retries: int
    faults: Faults


@dataclass(frozen=True)
class Finding:
    """What became of the requests that met one event."""

    window: Window
    num_requests: int
    failures: Sequence[str]
    altered: Sequence[int]  # numbers of requests
    longest_gap: float  # seconds between two tokens of any stream

    def complaints(self) -> list[str]:
        """A line for everything that is wrong."""
        event, faults = self.window.event, self.window.faults
        return [
            *(f"{event}: a request failed: {failure}" for failure in self.failures),
            *(
                f"{event}: request {number} was answered with other bytes"
                for number in self.altered
            ),
            *(
                f"{event}: expert {expert} of layer {layer} is lost"
                for layer, expert in faults.lost
            ),
            *(f"{event}: {line}" for line in faults.invalid),
        ]


def findings_of(
    windows: Sequence[Window], answers: Sequence[Answer], reference: Sequence[Answer]
) -> list[Finding]:
    """What became of all requests, window by window, compared with the reference, which is by
    request.

    Windows are in order. A failure, and the first byte that is another one, is put down to the
    window that began last before it.
    """
    failures: list[list[str]] = [[] for _ in windows]
    altered: list[list[int]] = [[] for _ in windows]
    beginnings = [window.began for window in windows]
    for answer in answers:
        if answer.failure is not None:
            failures[max(0, bisect(beginnings, answer.ended) - 1)].append(answer.failure)
        moment = moment_of_alteration(answer, reference[answer.request])
        if moment is not None:
            altered[max(0, bisect(beginnings, moment) - 1)].append(answer.request)
    return [
        _finding(window, answers, failures[index], altered[index])
        for index, window in enumerate(windows)
    ]


def moment_of_alteration(answer: Answer, reference: Answer) -> float | None:
    """When the first token came that is another one than it should be, or the end where only the
    text is another.
    """
    for arrival, count in zip(answer.arrivals, answer.counts, strict=True):
        if answer.token_ids[:count] != reference.token_ids[:count]:
            return arrival
    is_whole = answer.failure is None
    same_text = (
        answer.text == reference.text if is_whole else reference.text.startswith(answer.text)
    )
    is_as_long = len(answer.token_ids) == len(reference.token_ids) or not is_whole
    return None if same_text and is_as_long else answer.ended


def table_of(title: str, findings: Sequence[Finding]) -> Table:
    """The findings, a row for each event."""
    table = Table(title, HEADINGS)
    for finding in findings:
        window = finding.window
        counts = (finding.num_requests, len(finding.failures), len(finding.altered))
        faults = (len(window.faults.lost), len(window.faults.invalid))
        table.add(window.event, *counts, finding.longest_gap, window.num_retries, *faults)
    return table


def _finding(
    window: Window, answers: Sequence[Answer], failures: Sequence[str], altered: Sequence[int]
) -> Finding:
    met = [
        answer for answer in answers if answer.began < window.ended and answer.ended > window.began
    ]
    longest_gap = max((gap for answer in met for gap in _gaps(answer, window)), default=0.0)
    return Finding(window, len(met), failures, altered, longest_gap)


def gaps_within(answers: Sequence[Answer], began: float, ended: float) -> list[float]:
    """Seconds between tokens of any answer, where both came at these moments or between them."""
    return [
        later - earlier
        for answer in answers
        for earlier, later in pairwise(answer.arrivals)
        if began <= earlier and later <= ended
    ]


def _gaps(answer: Answer, window: Window) -> list[float]:
    return [
        later - earlier
        for earlier, later in pairwise(answer.arrivals)
        if earlier < window.ended and later > window.began
    ]
