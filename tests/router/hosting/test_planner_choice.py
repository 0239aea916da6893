"""A router plans as long as the first service that answers lets it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from services.router.hosting.planner_choice import PlannerChoice
from services.router.hosting.waits import WAITS
from services.runtime.notice import Notice
from services.wire.errors import Unavailable
from tests.clock import Clock

MINE = "mine"


@dataclass
class Service:
    """Says who plans; where it does not answer a second passes until that is known."""

    clock: Clock
    planner: str | None
    is_live: bool = True
    is_suspect: bool = False

    async def hold_planning(self, router: str, seconds: float) -> str:
        if self.planner is None:
            self.clock.seconds += 1.0
            raise Unavailable("it did not answer in time")
        return self.planner


@pytest.mark.parametrize(
    ("planners", "is_ours"),
    [
        ([MINE, "another"], True),
        (["another", MINE], False),
        ([None] * int(WAITS.planning_hold_seconds) + [MINE], True),
        ([], False),
    ],
    ids=["first", "second", "after some that do not answer", "nobody"],
)
async def test_a_router_plans_where_the_first_service_that_answers_says_so(
    planners: Sequence[str | None], is_ours: bool
) -> None:
    clock, changed = Clock(), Notice()
    services: list[Any] = [Service(clock, planner) for planner in planners]
    choice = PlannerChoice(MINE, lambda: services, changed, clock=clock)
    asking = asyncio.create_task(choice.run())
    for _ in range(3):  # it rests once it has asked
        await asyncio.sleep(0)
    assert choice.is_ours == is_ours
    clock.seconds += WAITS.planning_hold_seconds
    assert not choice.is_ours
    asking.cancel()
