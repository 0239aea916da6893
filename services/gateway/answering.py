"""Answers lines of JSON in a process that may be killed: the other end of `apart.Apart`."""

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

from services.gateway.workers_apart import bound_memory, limit
from services.wire.errors import ServingError

# For a line. It ends also where whoever asked is gone.
MAX_CPU_SECONDS = 10

Answering = Callable[[Any], object]


def answer_lines(begin: Callable[[Any], Answering]) -> None:
    """Until the input ends: what `begin` makes of the first line answers each further one.

    A ServingError is answered with its message.
    """
    bound_memory()
    answering: Answering | None = None
    for line in sys.stdin:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + MAX_CPU_SECONDS)
        said: dict[str, object] = {"answer": None}
        try:
            if answering is None:
                answering = begin(json.loads(line))
            else:
                said["answer"] = answering(json.loads(line))
        except ServingError as error:
            said = {"refusal": str(error)}
        print(json.dumps(said), flush=True)
