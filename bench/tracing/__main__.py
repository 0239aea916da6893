"""`python -m bench.tracing`: what tracing costs, and whether traces and receipts tell where the
time goes.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from bench.harness.command import bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.rig.client_load import ClientLoad
from bench.rig.cluster import Cluster, cluster_running
from bench.rig.prompts import Prompts, text_prompts
from bench.tracing.sink import span_sink
from bench.tracing.tables import DEFAULT, LAYERS, OFF, add_cost, add_receipts, add_wire
from bench.tracing.wire import BUSY, DELAY_SECONDS, IDLE, NUM_BUSY, WireTimes, wired_cluster
from moesaic.v1 import common_pb2
from services.runtime.embedded_model import EMBEDDED_MODEL

CONCURRENCY = 16
NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 64, 96
NUM_RECEIPTS = 200

COMPARED = (
    f"{CONCURRENCY} requests at once on clusters of real processes (gateway, router, two experts, "
    "one thread each): "
    "without tracing, with tracing as it is by default, and with every layer of every request "
    "traced; traces are "
    f"sent to a receiver of the bench by OTLP. Then a relay adds {DELAY_SECONDS * 1e3:g} ms "
    "before one service, and "
    "the wire time of its frames is read from the traces; and the measured parts of receipts are "
    "added up."
)


async def measure(options: Namespace, stages: Stages) -> Report:
    """All three."""
    report = Report("tracing", COMPARED)
    prompts = text_prompts(CONCURRENCY, NUM_PROMPT_TOKENS)
    await _measure_cost(report, prompts, 3 if options.quick else 30, stages)
    await _measure_wire(report, prompts, 2 if options.quick else 8, stages)
    return report


async def _measure_cost(report: Report, prompts: Prompts, num_rounds: int, stages: Stages) -> None:
    async with AsyncExitStack() as stack:
        with stages.stage("starting a cluster without tracing and one with it"):
            sink = await stack.enter_async_context(span_sink())
            untraced = await stack.enter_async_context(cluster_running(EMBEDDED_MODEL))
            traced = await stack.enter_async_context(
                cluster_running(EMBEDDED_MODEL, sink.variables)
            )
        by_default = common_pb2.TRACE_DETAIL_UNSPECIFIED
        loads = {
            OFF: (untraced, _load(untraced, by_default, stack)),
            DEFAULT: (traced, _load(traced, by_default, stack)),
            LAYERS: (traced, _load(traced, common_pb2.TRACE_DETAIL_LAYER, stack)),
        }
        variants = {
            name: partial(cluster.generate, load, prompts)
            for name, (cluster, load) in loads.items()
        }

        def end_round() -> None:
            sink.clear()
            stages.step()

        with stages.stage("what tracing costs", num_rounds + 1):
            samples = await interleaved(variants, num_rounds, after_round=end_round)
        add_cost(report, samples)
        with stages.stage("receipts"):
            many = text_prompts(NUM_RECEIPTS, NUM_PROMPT_TOKENS)
            generated = await loads[DEFAULT][1].generate(many, concurrency=CONCURRENCY)
        add_receipts(report, generated.receipts)


async def _measure_wire(report: Report, prompts: Prompts, num_rounds: int, stages: Stages) -> None:
    times = {IDLE: WireTimes(), BUSY: WireTimes()}
    async with span_sink() as sink, wired_cluster(EMBEDDED_MODEL, sink) as cluster:
        with stages.stage("wire times with a relay that delays", num_rounds):
            await cluster.measure(prompts[:NUM_BUSY], WireTimes())
            for _ in range(num_rounds):
                await cluster.measure(prompts[:1], times[IDLE])
                await cluster.measure(prompts[:NUM_BUSY], times[BUSY])
                stages.step()
    add_wire(report, times)


def _load(
    cluster: Cluster, detail: "common_pb2.TraceDetail.ValueType", stack: AsyncExitStack
) -> ClientLoad:
    load = ClientLoad(cluster.gateway.address, num_new_tokens=NUM_NEW_TOKENS, trace_detail=detail)
    stack.push_async_callback(load.close)
    return load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    return run_bench(bench_parser("tracing", COMPARED), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
