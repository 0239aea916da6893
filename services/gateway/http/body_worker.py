"""`python -m services.gateway.http.body_worker`: reads bodies of requests in a process that may be
killed. A line says by which function and how many bytes follow; what the body asks for is said back
likewise. It ends with its input.
"""

import os
import pickle
import sys

from services.gateway.http.asked import READERS
from services.gateway.http.errors import BadField
from services.gateway.workers_apart import bound_memory

# Beyond that of who starts it, whose event loop is to have the core that both may share.
NICENESS = 10


def main() -> None:
    """Read until nothing follows."""
    bound_memory()
    os.nice(NICENESS)
    asked, told = sys.stdin.buffer, sys.stdout.buffer
    while line := asked.readline():
        name, length = line.split()
        answer = answered(name.decode(), asked.read(int(length)))
        told.write(b"%d\n" % len(answer) + answer)
        told.flush()


def answered(name: str, body: bytes) -> bytes:
    """What a body asks for; of one that is refused, why and the field."""
    try:
        return pickle.dumps(READERS[name](body))
    except BadField as error:
        return pickle.dumps((str(error), error.param))


if __name__ == "__main__":
    main()
