"""One of several routers plans for all: the first to ask, until it asks no more."""

import pytest

from services.expert.planning_hold import MAX_NAME_CHARACTERS, MAX_SECONDS, PlanningHold
from services.wire.errors import InvalidRequest


def test_whoever_asks_first_plans_until_its_time_is_up() -> None:
    now = 0.0
    hold = PlanningHold(lambda: now)
    assert hold.ask("one", 3.0) == "one"
    now = 2.0
    assert hold.ask("two", 3.0) == "one"
    assert hold.ask("one", 3.0) == "one"
    now = 4.9
    assert hold.ask("two", 3.0) == "one"
    now = 5.0
    assert hold.ask("two", 3.0) == "two"
    assert hold.ask("one", 3.0) == "two"


@pytest.mark.parametrize(
    ("router", "seconds"),
    [("", 1.0), ("a" * (MAX_NAME_CHARACTERS + 1), 1.0), ("a", 0.0), ("a", MAX_SECONDS + 1)],
)
def test_a_name_or_a_time_that_is_none_is_refused(router: str, seconds: float) -> None:
    with pytest.raises(InvalidRequest, match="it must "):
        PlanningHold().ask(router, seconds)
