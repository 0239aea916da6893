"""`python -m bench.crowd.gateway FLAGS`: a gateway as operators run it, whose loop is watched. What
is seen is left in the folder that BENCH_WATCHED names.
"""

import os
import sys
from pathlib import Path

from bench.crowd.probe import LoopBlocks, LoopWatch
from services.gateway.settings import GatewaySettings
from services.runtime.process import OnReady, run_process
from services.runtime.settings import load

FOLDER_VARIABLE, CAUSES_VARIABLE = "BENCH_WATCHED", "BENCH_CAUSES"


def main() -> int:
    """Run the gateway; its exit code."""
    settings = load(GatewaySettings, sys.argv[1:], "python -m bench.crowd.gateway")
    folder = Path(os.environ[FOLDER_VARIABLE])

    async def life(on_ready: OnReady) -> None:
        from services.gateway import app  # after the process has read what is said of streams

        async def ready(port: int) -> None:
            await on_ready(port)
            causes = folder / "causes" if os.environ.get(CAUSES_VARIABLE) else None
            watch.append(LoopWatch(LoopBlocks.in_folder(folder), causes))

        watch: list[LoopWatch] = []
        await app.run(settings, on_ready=ready)

    return run_process(life, service="gateway")


if __name__ == "__main__":
    sys.exit(main())
