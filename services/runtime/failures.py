"""What becomes of an exception at a boundary, behind which others are served: one error to tell,
the rest in the log.

An exception that is a ServingError is told as it is. Any other says that something of ours is
wrong, which is for the operator to read: the log has its traceback, once, and whoever waited hears
INTERNAL.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

# Between two tracebacks of what is left aside at one place: it may fail at every step.
ASIDE_SECONDS = 60.0

_left_aside: dict[str, float] = {}  # when it was logged last, by place


def flatten_group(error: BaseException) -> list[BaseException]:
    """The exceptions of a group and of the groups within it; an exception that is no group is its
    only leaf.
    """
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in flatten_group(inner)]


def failure_of(error: BaseException, what: str) -> ServingError:
    """The error to tell those whom `what` was done for; of a group its first, since that ended the
    others.
    """
    error = flatten_group(error)[0]
    if isinstance(error, ServingError):
        return error
    logger.error("%s failed unforeseen", what, exc_info=error)
    return ServingError(f"{what} failed; the service's log says why")


def leave_aside(error: BaseException, what: str) -> None:
    """Log the failure of what nobody waits for: observing, or telling somebody who has left."""
    now = time.monotonic()
    if now - _left_aside.get(what, -ASIDE_SECONDS) >= ASIDE_SECONDS:
        _left_aside[what] = now
        logger.error("%s failed unforeseen, and is left aside", what, exc_info=error)


@contextmanager
def aside(what: str) -> Iterator[None]:
    """Leave aside whatever fails in the block."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 -- a boundary by its purpose: see `leave_aside`
        leave_aside(error, what)
