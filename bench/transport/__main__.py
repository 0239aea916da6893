"""`python -m bench.transport`: the tensor stream against a bare grpc.aio echo of the same bytes."""

import sys
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.plot import draw_spreads, label_axes
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table
from bench.rig.checkpoints import experts_only, hollow
from bench.rig.peers import connected
from bench.rig.processes import forked
from bench.rig.simulated import SimulatedExpert, simulated_expert
from bench.transport.echo import EchoClient, echo_server, echoing
from services.model.checkpoint import Checkpoint
from services.router.dispatch.placement import MAX_FRAME_BYTES
from services.router.peers.peer import ExpertPeer
from services.wire.frames import encode_frame

KIB, MIB = 1 << 10, 1 << 20
SIZES = (4 * KIB, 64 * KIB, MIB, 8 * MIB)
NUM_SERVICES = (1, 2, 4, 8)
NUM_WARM_UPS = 3
HIDDEN_SIZE = 2048  # a row of 4 KiB in bfloat16
# Half of a frame is left for what surrounds the rows, as the router does it.
MAX_ROWS_BYTES = MAX_FRAME_BYTES // 2

COMPARED = (
    "the router's ExpertStream to real expert services (frames with checksums written and read, "
    "queued, batched, "
    "answered with as many bytes of rows; the device behind them is SIMULATED and takes no time) "
    "against a bare "
    "grpc.aio stream that echoes the same bytes, both with the same channel options, each server "
    "a process of its own. "
    "A sample is one exchange with all services at once."
)


class TensorClient:
    """Rows out to expert services and as many rows back, by the router's own streams."""

    def __init__(self, checkpoint: Checkpoint, peers: Sequence[ExpertPeer]) -> None:
        self._peers = peers
        self._dtype = checkpoint.dtype
        self._hidden_size = checkpoint.hidden_size

    def frames(self, num_bytes: int) -> list[torch.Tensor]:
        """Rows of so many bytes, cut into frames as the router would cut them."""
        row_bytes = self._hidden_size * self._dtype.itemsize
        rows = torch.zeros(num_bytes // row_bytes, self._hidden_size, dtype=self._dtype)
        return list(rows.split(MAX_ROWS_BYTES // row_bytes))

    async def exchange(self, frames: Sequence[torch.Tensor], num_services: int) -> None:
        """Send the frames to each of the first services, and return when the rows of all of them
        are readable.
        """
        answers = [
            peer.streams[0].send(partial(encode, rows), len(rows), 1)
            for rows in frames
            for peer in self._peers[:num_services]
        ]
        for answered in answers:
            answer = await answered
            answer.reply.rows(self._dtype, self._hidden_size)


def encode(rows: torch.Tensor, frame_id: int, remaining_nanos: int) -> bytes:
    """A frame that has one expert compute each of the rows."""
    num_rows = len(rows)
    return encode_frame(
        frame_id=frame_id,
        layer=0,
        rows=rows,
        pair_rows=np.arange(num_rows, dtype=np.uint32),
        pair_experts=np.zeros(num_rows, dtype=np.uint32),
        remaining_nanos=remaining_nanos,
        traceparent="",
        requests=(1,),
        checksum=True,  # as a router does unless told otherwise
    )


def num_rounds_of(num_bytes: int, num_services: int, *, quick: bool) -> int:
    """Rounds for about the same time in each case: fewer of larger ones, and never fewer than a
    spread takes.
    """
    budget = (16 if quick else 128) * MIB
    most = 60 if quick else 400
    return max(5 if quick else 11, min(most, budget // (num_bytes * num_services)))


async def measure(options: Namespace, stages: Stages, *, model: Path | None = None) -> Report:
    """Every size with every number of services."""
    sizes: Sequence[int] = options.sizes
    counts: Sequence[int] = options.services
    with stages.stage("starting servers"):
        model = model or experts_only(hollow(HIDDEN_SIZE, 1, 1, 1))
        checkpoint = Checkpoint.open(model)
    report = Report("transport", COMPARED)
    async with (
        forked(simulated_expert, [SimulatedExpert(model)] * max(counts)) as experts,
        forked(echo_server, [None] * max(counts)) as echoes,
        connected(checkpoint, [server.address for server in experts]) as peers,
        echoing([server.address for server in echoes]) as echo,
    ):
        tensors = TensorClient(checkpoint, peers)
        for num_bytes in sizes:
            for count in counts:
                rounds = num_rounds_of(num_bytes, count, quick=options.quick)
                with stages.stage(
                    f"{shown_size(num_bytes)}, services: {count}", rounds + NUM_WARM_UPS
                ):
                    samples = await compare(tensors, echo, num_bytes, count, rounds, stages)
                report.samples[f"{num_bytes} bytes, {count} services, ms"] = samples
    _fill(report, sizes, counts)
    return report


async def compare(
    tensors: TensorClient,
    echo: EchoClient,
    num_bytes: int,
    num_services: int,
    num_rounds: int,
    stages: Stages,
) -> dict[str, list[float]]:
    """Milliseconds of each exchange, by variant."""
    frames = tensors.frames(num_bytes)
    messages = [encode(rows, 0, 0) for rows in frames]
    variants = {
        "tensor": timed(partial(tensors.exchange, frames, num_services)),
        "echo": timed(partial(echo.exchange, messages, num_services)),
    }
    return await interleaved(
        variants, num_rounds, after_round=stages.step, num_warm_ups=NUM_WARM_UPS
    )


def timed(run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    """The same, returning the milliseconds that it took."""

    async def run_timed() -> float:
        began = time.perf_counter_ns()
        await run()
        return (time.perf_counter_ns() - began) / 1e6

    return run_timed


def _fill(report: Report, sizes: Sequence[int], counts: Sequence[int]) -> None:
    table = Table(
        "one exchange (service devices SIMULATED, without time)",
        (
            "bytes each way",
            "services",
            "tensor stream ms",
            "bare echo ms",
            "ratio",
            "tensor MiB/s each way",
        ),
    )
    ratios: dict[int, list[Spread]] = {count: [] for count in counts}
    for num_bytes in sizes:
        for count in counts:
            samples = report.samples[f"{num_bytes} bytes, {count} services, ms"]
            tensor, echo = spread_of(samples["tensor"]), spread_of(samples["echo"])
            ratio = ratio_of(samples["tensor"], samples["echo"])
            ratios[count].append(ratio)
            table.add(
                shown_size(num_bytes),
                count,
                tensor,
                echo,
                ratio,
                num_bytes * count / MIB / tensor.median * 1e3,
            )
    report.tables.append(table)
    if max(sizes) > MAX_ROWS_BYTES:
        report.notes.append(
            f"the router never sends more than {shown_size(MAX_ROWS_BYTES)} of rows in a frame: a "
            "larger tensor "
            "goes as several, and so do the echo's bytes"
        )
    report.panels.append(partial(_draw, sizes=sizes, ratios=ratios))


def _draw(axis: Any, *, sizes: Sequence[int], ratios: dict[int, list[Spread]]) -> None:
    for count, spreads in ratios.items():
        draw_spreads(axis, sizes, spreads, f"services: {count}")
    axis.axhline(1.0, color="black", linewidth=0.8)
    label_axes(
        axis,
        "tensor stream ÷ bare echo (devices SIMULATED, no time)",
        "bytes each way and service",
        "ratio",
    )


def shown_size(num_bytes: int) -> str:
    """Bytes as people say them."""
    return f"{num_bytes / MIB:g} MiB" if num_bytes >= MIB else f"{num_bytes / KIB:g} KiB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("transport", COMPARED, ("--sizes 4096,1048576 --services 1,2",))
    add_numbers(parser, "sizes", SIZES, "bytes of rows each way, multiples of 4096")
    add_numbers(parser, "services", NUM_SERVICES, "numbers of services")
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
