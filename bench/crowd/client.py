"""`python -m bench.crowd.client`: a client's process. A line of JSON from stdin names a load
and its values; a line on stdout has what came of it, and the CPU time that it took.
"""

import json
import os
import sys
import time

from bench.crowd.loads import LOADS

# The services on the same core are served before it, as if it were on a machine of its own.
NICENESS = 10


def main() -> None:
    """Do what is asked for until stdin ends."""
    os.nice(NICENESS)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.process_time()
        result = LOADS[asked.pop("load")](**asked)
        print(json.dumps({**result, "cpu_seconds": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    main()
