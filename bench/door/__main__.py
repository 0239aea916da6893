"""`python -m bench.door`: tokens per second, first token and the gateway's CPU time over HTTP,
against the same requests over gRPC; and what is left of clients that leave.
"""

import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from bench.door.http_load import HttpLoad
from bench.door.leaving import Left, leave, left
from bench.door.tables import GRPC, GRPC_EACH, HTTP, Case, fill, leavers
from bench.door.timed import Timed
from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.rig.client_load import ClientLoad
from bench.rig.cluster import Cluster, cluster_running
from bench.rig.processes import cpu_nanos
from bench.rig.prompts import Prompts, text_prompts
from services.runtime.embedded_model import EMBEDDED_MODEL

CONCURRENCY = (1, 16, 64)
NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 64, 48
NUM_LEAVERS, QUICK_LEAVERS = 5_000, 1_000
WARM_UP_LEAVERS = 500

Ask = Callable[[Prompts], Awaitable[Timed]]

COMPARED = (
    "{} greedy tokens past the end of sequence for prompts of {} tokens of real text, streamed, "
    "all requests at once: one cluster with the shipped model (gateway, router, two experts, one "
    "thread each), asked over gRPC by one connection, over gRPC by one for each request, and over "
    "HTTP by one for each request, in turn. The client of HTTP does little but look when tokens "
    "come."
)


async def measure(options: Namespace, stages: Stages) -> Report:
    """Both doors at every number of requests, then clients that leave."""
    prompts = text_prompts(max(*options.requests, 16), NUM_PROMPT_TOKENS)
    report = Report("door", COMPARED.format(options.new_tokens, NUM_PROMPT_TOKENS))
    async with AsyncExitStack() as stack:
        with stages.stage("starting the cluster"):
            cluster = await stack.enter_async_context(
                cluster_running(EMBEDDED_MODEL, http_listen="127.0.0.1:0")
            )
        doors = await _doors(cluster, max(options.requests), options.new_tokens, stack)
        cases = []
        num_rounds = 7 if options.quick else 15
        for count in options.requests:
            with stages.stage(f"requests: {count}", num_rounds + 1):
                asked = {name: partial(ask, prompts[:count]) for name, ask in doors.items()}
                samples = await interleaved(asked, num_rounds, after_round=stages.step)
            cases.append(Case(count, samples))
        fill(report, cases)
        num_leavers = QUICK_LEAVERS if options.quick else NUM_LEAVERS
        with stages.stage(f"clients that leave: {num_leavers}"):
            report.tables.append(
                leavers(num_leavers, *await _leaving(cluster, prompts, num_leavers))
            )
    return report


async def _doors(
    cluster: Cluster, num_connections: int, num_new_tokens: int, stack: AsyncExitStack
) -> dict[str, Ask]:
    doors: dict[str, Ask] = {}
    for name, count in {GRPC: 1, GRPC_EACH: num_connections}.items():
        load = ClientLoad(
            cluster.gateway.address, num_new_tokens=num_new_tokens, num_connections=count
        )
        stack.push_async_callback(load.close)
        doors[name] = partial(_over_grpc, load, num_new_tokens)
    http = HttpLoad(cluster.http, num_new_tokens=num_new_tokens)
    stack.push_async_callback(http.close)
    doors[HTTP] = http.generate

    async def counted(ask: Ask, prompts: Prompts) -> Timed:
        before = cpu_nanos(cluster.gateway.pid)
        timed = await ask(prompts)
        timed.gateway_cpu_seconds = (cpu_nanos(cluster.gateway.pid) - before) / 1e9
        return timed

    return {name: partial(counted, ask) for name, ask in doors.items()}


async def _over_grpc(load: ClientLoad, num_new_tokens: int, prompts: Prompts) -> Timed:
    generated = await load.generate(prompts)
    if any(len(token_ids) != num_new_tokens for token_ids in generated.token_ids):
        raise BenchFailed("fewer tokens came over gRPC than asked for")
    first_seconds = [seconds[0] for seconds in generated.token_seconds]
    return Timed(generated.seconds, generated.num_tokens, first_seconds)


async def _leaving(cluster: Cluster, prompts: Prompts, count: int) -> tuple[Left, Left]:
    await leave(cluster, prompts, WARM_UP_LEAVERS, seed=0)
    before = await left(cluster)
    await leave(cluster, prompts, count, seed=1)
    return before, await left(cluster)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = bench_parser("door", __doc__ or "", ("--requests 1,16",))
    add_numbers(parser, "requests", CONCURRENCY, "requests at once")
    parser.add_argument(
        "--new-tokens",
        type=int,
        default=NUM_NEW_TOKENS,
        metavar="N",
        help="of each request (default: %(default)s)",
    )
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
