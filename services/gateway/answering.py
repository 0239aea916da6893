"""Answers lines of JSON in a process that may be killed: the other end of `apart.Apart`."""

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

from services.wire.errors import ServingError

MAX_MEMORY_BYTES = 1 << 30
# For a line. It ends also where whoever asked is gone.
MAX_CPU_SECONDS = 10

Answering = Callable[[Any], object]


def answer_lines(begin: Callable[[Any], Answering]) -> None:
    """Until the input ends: what `begin` makes of the first line answers each further one.

    A ServingError is answered with its message.
    """
    _limit(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    answering: Answering | None = None
    for line in sys.stdin:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + MAX_CPU_SECONDS)
        said: dict[str, object] = {"answer": None}
        try:
            if answering is None:
                answering = begin(json.loads(line))
            else:
                said["answer"] = answering(json.loads(line))
        except ServingError as error:
            said = {"refusal": str(error)}
        print(json.dumps(said), flush=True)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    limit = most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(what, (limit, hard))
