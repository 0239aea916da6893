"""Awaiting inside a synchronous forward.

A step runs the model in a greenlet on the event loop's thread. Where the model needs its experts,
`await_` switches back to the loop with an awaitable and is resumed with its result: no second
thread, and while one lane awaits another computes. The technique is SQLAlchemy's asyncio layer's.
"""

import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import greenlet

from services.router.times.arrivals import LOOP

Awaited = TypeVar("Awaited")
State = TypeVar("State")


class StepGreenlet(greenlet.greenlet, Generic[State]):
    """A greenlet that carries the state of the step it runs."""

    def __init__(self, run: Callable[[], object], state: State) -> None:
        super().__init__(run)
        self.state = state


async def run_awaiting(function: Callable[[], Awaited], state: object) -> Awaited:
    """Call `function` so that `await_` works below it; `state` is what `current_state` returns
    there.

    An exception of an awaitable, cancellation included, is raised inside `function`, so that its
    `finally` blocks run.
    """
    running: StepGreenlet[object] = StepGreenlet(function, state)
    # A fresh greenlet starts with an empty context and would lose the current span.
    running.gr_context = contextvars.copy_context()
    outcome = _computing(running.switch)
    while not running.dead:
        try:
            value = await outcome
        except BaseException as error:  # noqa: BLE001 -- not handled here: it is raised where it was awaited
            outcome = _computing(running.throw, error)
        else:
            outcome = _computing(running.switch, value)
    return outcome  # type: ignore[no-any-return]


def _computing(resume: Callable[..., Any], *arguments: object) -> Any:
    began = time.perf_counter_ns()
    try:
        return resume(*arguments)
    finally:
        LOOP.extend(began, time.perf_counter_ns())


def await_(awaitable: Awaitable[Awaited]) -> Awaited:
    """Await from inside a function that `run_awaiting` runs. Raises RuntimeError outside of one."""
    current = greenlet.getcurrent()
    if not isinstance(current, StepGreenlet) or current.parent is None:
        raise RuntimeError("await_ works only below run_awaiting")
    return current.parent.switch(awaitable)  # type: ignore[no-any-return]


def current_state() -> object | None:
    """The state of the step that is running, or None outside of one."""
    current = greenlet.getcurrent()
    return current.state if isinstance(current, StepGreenlet) else None
