"""A plan as it is shown, and the commands that ask for one."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.console import Console

from moesaic.v1 import placement_pb2_grpc, router_pb2
from services.cli.hosting import placement
from services.cli.hosting.document import PlacementDocument
from services.cli.hosting.plan import MAX_MOVES, duration, explanation, plan_as_object, plan_summary
from services.cli.hosting.rebalance import request_for
from services.cli.hosting.router import RouterFailed, change
from services.cli.hosting.settings import PlanSettings, RebalanceSettings
from services.cli.report import Report
from services.runtime.text_files import STANDARD
from services.wire.errors import BadState
from tests.cli.command_line import scripted

REASON = "no further move gains a third of a percent"
TARGET = {"a:1": {"1": "0-2", "3": "0"}, "b:1": {"1": "3", "3": "0-3"}}


def plan(num_moves: int = 2, **fields: Any) -> router_pb2.PlanPlacementResponse:
    moves = [
        router_pb2.PlannedMove(
            layer=1, expert=expert, source="b:1", target="a:1", gain_nanos=1e4 * expert, why="hot"
        )
        for expert in range(num_moves)
    ]
    whole: dict[str, Any] = {
        "target": PlacementDocument(model_digest="sha256:1", services=TARGET).target(),
        "moves": moves,
        "num_unloads": 1,
        "before_nanos": [2e6, 4e6],
        "after_nanos": [2e6, 2.5e6],
        "before_imbalance": [0.1, 0.7],
        "after_imbalance": [0.1, 0.0],
        "reason": REASON,
        "num_steps": 1234,
    } | fields
    return router_pb2.PlanPlacementResponse(**whole)


def shown(planned: router_pb2.PlanPlacementResponse) -> list[str]:
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        for part in explanation(planned):
            console.print(part, markup=False)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_plan_begins_with_what_it_is_expected_to_bring() -> None:
    assert list(plan_summary(plan())) == [
        "experts take 6.00 ms of a mean step, by the last 1,234 steps",
        "planned: 4.50 ms (25.0% sooner); imbalance over the services 0.40 -> 0.05, in the mean "
        "of all layers",
        f"replicas: 2 moved, 1 given up; no more, since {REASON}",
    ]


def test_where_nothing_is_moved_that_is_said_with_the_reason() -> None:
    nothing = plan(0, num_unloads=0)
    assert list(plan_summary(nothing))[1:] == [f"nothing is moved, since {REASON}"]
    assert not any("sooner by" in line for line in shown(nothing))


def test_a_placement_that_makes_things_worse_is_said_to() -> None:
    assert "7.50 ms (25.0% later)" in list(plan_summary(plan(after_nanos=[4e6, 3.5e6])))[1]


def test_a_step_without_experts_has_no_share_to_gain() -> None:
    assert (
        "0.00 µs (no change)"
        in list(plan_summary(plan(before_nanos=[0, 0], after_nanos=[0, 0])))[1]
    )


def test_each_layer_has_its_time_and_its_imbalance_before_and_after() -> None:
    lines = shown(plan())
    assert ["1", "2.00", "ms", "2.00", "ms", "0.10", "■", "0.10", "■"] in [
        line.split() for line in lines
    ]
    assert ["3", "4.00", "ms", "2.50", "ms", "0.70", "■" * 7, "0.00"] in [
        line.split() for line in lines
    ]


def test_moves_are_told_with_their_reason_the_most_telling_first_and_cut_with_a_count() -> None:
    lines = shown(plan(MAX_MOVES + 3))
    rows = [line.split() for line in lines if line.endswith("hot")]
    assert [int(row[1]) for row in rows] == [*range(MAX_MOVES + 2, 2, -1)]
    assert rows[0] == ["1", "22", "b:1", "a:1", "220", "µs", "hot"]
    assert "… and 3 more, which gain less; --json has them all" in lines


def test_a_replica_that_leaves_nowhere_is_one_that_is_added() -> None:
    lines = shown(
        plan(
            moves=[router_pb2.PlannedMove(layer=1, expert=2, target="a:1", why="hot")],
            num_unloads=0,
        )
    )
    assert lines[2] == f"replicas: 1 added; no more, since {REASON}"
    assert ["1", "2", "(added)", "a:1", "0.00", "µs", "hot"] in [line.split() for line in lines]


def test_what_became_of_earlier_plans_is_told() -> None:
    outcomes = [
        router_pb2.PlanOutcome(
            operation_id="new", before_nanos=9e6, predicted_nanos=8e6, num_moves=4
        ),
        router_pb2.PlanOutcome(
            operation_id="old",
            before_nanos=9e6,
            predicted_nanos=7e6,
            achieved_nanos=7.5e6,
            num_moves=5,
        ),
    ]
    lines = [line.split() for line in shown(plan(outcomes=outcomes))]
    assert lines[-2:] == [
        ["new", "4", "9.00", "ms", "8.00", "ms", "-"],
        ["old", "5", "9.00", "ms", "7.00", "ms", "7.50", "ms"],
    ]


def test_programs_get_everything() -> None:
    outcome = router_pb2.PlanOutcome(
        operation_id="new", before_nanos=9e6, predicted_nanos=8e6, num_moves=4
    )
    found = json.loads(json.dumps(plan_as_object(plan(MAX_MOVES + 3, outcomes=[outcome]))))
    assert (found["num_steps"], found["before_nanos"], found["after_nanos"]) == (1234, 6e6, 4.5e6)
    assert [move["expert"] for move in found["moves"]] == [*range(MAX_MOVES + 2, -1, -1)]
    assert found["layers"][1] == {
        "layer": 3,
        "before_nanos": 4e6,
        "after_nanos": 2.5e6,
        "before_imbalance": 0.7,
        "after_imbalance": 0.0,
    }
    assert found["outcomes"][0]["achieved_nanos"] is None
    assert found["target"] == {"model_digest": "sha256:1", "services": TARGET}


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.00 µs"),
        (999, "1.00 µs"),
        (9_996, "10.0 µs"),
        (99_960, "100 µs"),
        (1e6, "1.00 ms"),
        (-2.5e9, "-2.50 s"),
    ],
)
def test_durations_have_three_digits(nanos: float, text: str) -> None:
    assert duration(nanos) == text


class Planning(placement_pb2_grpc.PlacementServiceServicer):
    """Answers with a plan, and carries it out at once."""

    def __init__(self) -> None:
        self.plan = plan()
        self.requests: list[Any] = []
        self.refusal: BadState | None = None
        self.address = ""

    async def PlanPlacement(
        self, request: router_pb2.PlanPlacementRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.PlanPlacementResponse:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        return self.plan

    async def ChangePlacement(
        self, request: router_pb2.ChangePlacementRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[router_pb2.ChangePlacementResponse]:
        self.requests.append(request)
        count = len(self.plan.moves)
        yield router_pb2.ChangePlacementResponse(operation_id=request.operation_id, plan=self.plan)
        yield router_pb2.ChangePlacementResponse(
            operation_id=request.operation_id,
            phase=router_pb2.OPERATION_PHASE_DONE,
            num_done=count,
            num_total=count,
        )


@pytest.fixture
async def router() -> AsyncIterator[Planning]:
    router = Planning()
    async with scripted(
        placement_pb2_grpc.add_PlacementServiceServicer_to_server, router
    ) as router.address:
        yield router


async def test_a_plan_is_asked_for_by_strategy(
    router: Planning, capsys: pytest.CaptureFixture[str]
) -> None:
    await placement.plan(PlanSettings(router=router.address))
    assert capsys.readouterr().out.startswith(
        "experts take 6.00 ms of a mean step, by the last 1,234 steps\n"
    )
    await placement.plan(PlanSettings(router=router.address, strategy="eplb", json_output=True))
    assert json.loads(capsys.readouterr().out) == plan_as_object(plan())
    assert [request.strategy for request in router.requests] == [
        router_pb2.PLAN_STRATEGY_BALANCED,
        router_pb2.PLAN_STRATEGY_EPLB,
    ]


async def test_a_planned_placement_is_written_as_it_is_applied_and_judged(
    router: Planning, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "planned.json"
    await placement.plan(PlanSettings(router=router.address, output=file))
    stdout, stderr = capsys.readouterr()
    assert ("imbalance" in stdout, stderr) == (True, f"wrote {file}\n")
    await placement.plan(PlanSettings(router=router.address, file=file, output=STANDARD))
    assert capsys.readouterr().out == file.read_text()
    assert router.requests[1].target == plan().target


async def test_a_refused_plan_is_the_routers_sentence(router: Planning) -> None:
    router.refusal = BadState("3 steps have been seen so far; 64 are needed to plan for their load")
    with pytest.raises(
        RouterFailed, match="FAILED_PRECONDITION: 3 steps have been seen so far; 64 are needed"
    ):
        await placement.plan(PlanSettings(router=router.address))


async def test_a_rebalance_says_what_is_planned_and_what_was_done(
    router: Planning, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = RebalanceSettings(router=router.address, strategy="eplb")
    await change(request_for(settings), settings, Report())
    *said, done = capsys.readouterr().err.splitlines()
    assert said == list(plan_summary(plan()))
    assert done.startswith("done: 2 experts loaded or unloaded, ")
    assert router.requests[0].planned.strategy == router_pb2.PLAN_STRATEGY_EPLB


async def test_a_rebalance_that_gains_nothing_says_so_and_is_well(
    router: Planning, capsys: pytest.CaptureFixture[str]
) -> None:
    router.plan = plan(0, num_unloads=0)
    settings = RebalanceSettings(router=router.address)
    await change(request_for(settings), settings, Report())
    _, nothing, done = capsys.readouterr().err.splitlines()
    assert nothing == f"nothing is moved, since {REASON}"
    assert done.startswith("done: nothing had to change, ")


def test_an_even_placement_asks_nothing_of_the_load() -> None:
    assert request_for(RebalanceSettings(even=True)).WhichOneof("change") == "even"
    assert request_for(RebalanceSettings()).planned.strategy == router_pb2.PLAN_STRATEGY_BALANCED
