"""An operation's progress in words."""

from io import StringIO

import pytest
from rich.console import Console

from moesaic.v1 import router_pb2
from services.cli.hosting.shown import BytesLoaded, shown_on
from services.cli.report import Report

WAITING, LOADING, RETIRING = (
    router_pb2.OPERATION_PHASE_WAITING,
    router_pb2.OPERATION_PHASE_LOADING,
    router_pb2.OPERATION_PHASE_RETIRING,
)


def test_bytes_come_with_their_rate_and_the_time_left() -> None:
    loaded = BytesLoaded()
    assert loaded.words(0, 0, 1.0) == ""
    assert loaded.words(100_000_000, 900_000_000, 1.0) == "; 100 of 900 MB"
    assert loaded.words(300_000_000, 900_000_000, 3.0) == "; 300 of 900 MB, 100 MB/s, 6 s left"


def test_without_a_terminal_each_phase_is_a_line_and_waiting_is_said() -> None:
    text = StringIO()
    steps = [(WAITING, 0, 0), (LOADING, 0, 7), (LOADING, 3, 7), (RETIRING, 5, 7)]
    with shown_on(Report(Console(file=text))) as shown:
        for phase, num_done, num_total in steps:
            shown.show(
                router_pb2.ChangePlacementResponse(
                    operation_id="night", phase=phase, num_done=num_done, num_total=num_total
                )
            )
    assert text.getvalue().splitlines() == [
        "operation night: waiting for its turn",
        "operation night: loading, 7 changes in all",
        "operation night: retiring, 7 changes in all, 5 done",
    ]


@pytest.mark.parametrize("phase", [LOADING, RETIRING])
def test_on_a_terminal_a_bar_moves(phase: "router_pb2.OperationPhase.ValueType") -> None:
    text = StringIO()
    with shown_on(Report(Console(file=text, force_terminal=True, width=100))) as shown:
        shown.show(
            router_pb2.ChangePlacementResponse(
                phase=phase, num_done=3, num_total=7, loaded_bytes=5_000_000, total_bytes=9_000_000
            )
        )
    assert "3/7" in text.getvalue() and "5 of 9 MB" in text.getvalue()
