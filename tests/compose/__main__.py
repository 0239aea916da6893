"""`python -m tests.compose`: builds the image, brings the composed cluster up, and breaks it under
load.
"""

import sys
import time
from argparse import ArgumentParser

from rich.console import Console

from bench.harness.failure import BenchFailed
from bench.harness.programs import output
from bench.hosting.findings import table_of
from services.cli.command import run_command
from tests.compose.cluster import ComposeCluster
from tests.compose.engine import ROOT, compose_command, engine
from tests.compose.scenario import Measured, run

IMAGE = "moesaic"
# On a slow line most of it is torch.
BUILD_SECONDS = 1800.0
FILE_WIDTH = 140


async def test(image: str | None) -> None:
    """Print what was found. Raises BenchFailed when anything was wrong."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    began = time.perf_counter()

    def say(line: str) -> None:
        console.print(f"{time.perf_counter() - began:6.1f} s  {line}", markup=False)

    async with engine():
        if image is None:
            say("building the image")
            await output(str(ROOT / "deploy" / "build-image"), "--quiet", seconds=BUILD_SECONDS)
        cluster = ComposeCluster(await compose_command(), image or IMAGE)
        await cluster.down()
        try:
            measured = await run(cluster, say)
        except BaseException:
            say(f"failed; the containers' logs are in {await cluster.save_logs()}")
            raise
        finally:
            await cluster.down()
        size = int(
            await output("docker", "image", "inspect", "--format", "{{.Size}}", image or IMAGE)
        )
    _report(console, measured, size)


def _report(console: Console, measured: Measured, size: int) -> None:
    console.print(table_of("composed cluster", measured.findings).as_rich())
    frames = ", ".join(f"{seconds:.1f} s" for seconds in measured.first_frames)
    console.print(f"image                                        {size / 1e9:.2f} GB")
    console.print(f"`up` to first token                          {measured.first_token:.1f} s")
    console.print(f"added services, container start to a frame   {frames}")
    complaints = [complaint for finding in measured.findings for complaint in finding.complaints()]
    if complaints:
        raise BenchFailed("\n".join(dict.fromkeys(complaints)))


def main() -> int:
    """Run the test; its exit code."""
    parser = ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.add_argument("--image", help="an image that is there, in place of one built now")
    options = parser.parse_args()
    return run_command(test(options.image), command="compose-test")


if __name__ == "__main__":
    sys.exit(main())
