"""A cluster of real processes that is broken again and again answers every request, and with the
same bytes.
"""

from collections.abc import Callable

import pytest
from rich.console import Console

from bench.hosting.findings import table_of
from tests.chaos.schedule import SHORT
from tests.chaos.storm import run

STORM_SECONDS = 400
WIDTH = 140


@pytest.mark.timeout(STORM_SECONDS)
async def test_nobody_notices(record_property: Callable[[str, object], None]) -> None:
    findings = await run(SHORT, say=print)
    # As text: a worker of a distributed test run can hand over nothing else.
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as shown:
        console.print(table_of("chaos", findings).as_rich())
    record_property("chaos", shown.get())
    assert [complaint for finding in findings for complaint in finding.complaints()] == []
    assert len(findings) == len(SHORT)
    assert all(finding.num_requests for finding in findings)
