"""The planning process: reads calls from its stdin, answers on its stdout, and ends when its stdin
does.
"""

import os
import pickle
import signal
import struct
import sys
from typing import BinaryIO

from services.runtime.parent_death import signal_at_death_of
from services.wire.errors import ServingError

# Added to the niceness: serving comes first.
NICENESS = 10


def main() -> None:
    """Answer calls one by one. What a function raises that is no ServingError ends the process,
    with a traceback.
    """
    # Elsewhere than on Linux the end of stdin is noticed between two calls.
    signal_at_death_of(os.getppid(), signal.SIGKILL)
    os.nice(NICENESS)
    # What a library may print is none of an answer's bytes.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while (message := _read(sys.stdin.buffer)) is not None:
        function, arguments, named = pickle.loads(message)
        try:
            result = function(*arguments, **named)
        except ServingError as error:
            result = error
        answer = pickle.dumps(result)
        answers.write(struct.pack("<Q", len(answer)) + answer)
        answers.flush()


def _read(calls: BinaryIO) -> bytes | None:
    header = calls.read(8)
    if len(header) < 8:
        return None
    (length,) = struct.unpack("<Q", header)
    return calls.read(length)


if __name__ == "__main__":
    main()
