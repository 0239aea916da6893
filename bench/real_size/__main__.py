"""`python -m bench.real_size`: a model of OLMoE-1B-7B's shape, served by `moesaic serve`, beside
what the machine's memory and files allow.
"""

import asyncio
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.hosting.admin import Admin
from bench.real_size import disturbed
from bench.real_size.checkpoint import checkpoint_of
from bench.real_size.embedded import embedded_starts
from bench.real_size.memory import Taken, anonymous_bytes, require_memory
from bench.real_size.peers import llama_bench, vllm_bench
from bench.real_size.prompt import FirstToken, first_token_ms, transformers_first_token_ms
from bench.real_size.reading import seconds_to_read, whole_files
from bench.real_size.served import ServedCluster, served
from bench.real_size.sizes import OLMOE_3B, OLMOE_7B, QUICK, Size
from bench.real_size.tables import Found, Start, fill
from bench.real_size.tokens import measured_rates

PARTS = {
    "embedded": "from the command to ready and to a first token, with the embedded model",
    "start": "from the command to ready",
    "tokens": "tokens a second at several numbers of requests",
    "prompt": "a long prompt's first token, and transformers'",
    "kill": "a service dies that alone has its experts",
    "moves": "experts are spread evenly afterwards",
    "memory": "anonymous memory of the services",
    "covered": "a service dies whose experts another has too",
}
REQUESTS = (1, 4, 16)
# What processes take beside the weights: caches of keys and values, interpreters, rows.
BESIDE_BYTES = 3 << 30

COMPARED = (
    "a checkpoint of OLMoE-1B-7B's shape with random weights in bfloat16, served by "
    "`moesaic serve` with two expert services and its defaults; prompts of 64 tokens of real text "
    "and 48 new ones, greedy, at a client of the gateway. The limit of decoding is the weights "
    "that a step reads (trunk, and the experts that were active by a recording of the same "
    "requests) over plain reads of memory by all cores in the same run. Files are read once "
    "beforehand, so that the page cache has what it has room for. Engines run one after another, "
    "since memory holds one model."
)


@dataclass
class Bench:
    """One run: what is to be measured, and what was."""

    options: Namespace
    stages: Stages
    found: Found
    num_rounds: int

    def wants(self, *parts: str) -> bool:
        """Whether one of the parts was asked for."""
        return any(part in self.options.parts for part in parts)

    def report(self) -> Report:
        """All that was measured so far; it is written as well, so that nothing is lost."""
        report = Report("real_size", COMPARED)
        fill(report, self.found)
        report.write(self.options.json, self.options.command)
        return report


async def measure(options: Namespace, stages: Stages) -> Report:
    """The parts that are asked for: with each expert once, then with each twice, then others."""
    bench = Bench(options, stages, Found(), 1 if options.quick else options.rounds)
    if options.llama_bench is not None and options.gguf is None:
        raise BenchFailed("llama-bench needs a model of its own: name it with --gguf")
    single, covered = (QUICK, QUICK) if options.quick else (OLMOE_7B, OLMOE_3B)
    if bench.wants("embedded"):
        bench.found.embedded = await embedded_starts(bench.num_rounds, stages)
        bench.report()
    alone = {"start", "tokens", "prompt", "kill", "moves", "memory"}
    if bench.wants(*alone):
        await _with_one_replica(bench, single, checkpoint_of(single, stages))
    if bench.wants("covered"):
        await _with_two_replicas(bench, covered, checkpoint_of(covered, stages))
    await _others(bench, single)
    return bench.report()


async def _with_one_replica(bench: Bench, size: Size, model: Path) -> None:
    found, stages = bench.found, bench.stages
    async with _started(bench, size, model, coverage=1) as cluster:
        gateway, router = (cluster.members[name].address for name in ("gateway", "router"))
        if bench.wants("memory"):
            found.taken += await _taken(size, cluster, "ready")
        if bench.wants("tokens"):
            found.rates += await measured_rates(
                size, gateway, router, bench.options.requests, bench.num_rounds, stages
            )
            bench.report()
        if bench.wants("prompt"):
            ours = await first_token_ms(gateway, max(3, bench.num_rounds), stages)
            found.first_tokens[size.name] = FirstToken(ours)
        if bench.wants("memory"):
            found.taken += await _taken(size, cluster, "after use")
        bench.report()
        if bench.wants("kill", "moves"):
            with stages.stage(f"{size.name}: a service is killed"):
                kill = await disturbed.killed(size, model, cluster, coverage=1)
            found.kills += [kill] if bench.wants("kill") else []
            bench.report()
        if bench.wants("moves"):
            with stages.stage(f"{size.name}: experts are spread evenly"):
                found.moves.append(await disturbed.moved(size, cluster))
        if bench.wants("memory") and bench.wants("kill", "moves"):
            found.taken += await _taken(size, cluster, "after the kill")
    bench.report()


async def _with_two_replicas(bench: Bench, size: Size, model: Path) -> None:
    async with _started(bench, size, model, coverage=2) as cluster:
        with bench.stages.stage(f"{size.name}: a service is killed"):
            bench.found.kills.append(await disturbed.killed(size, model, cluster, coverage=2))
    bench.report()


@asynccontextmanager
async def _started(
    bench: Bench, size: Size, model: Path, *, coverage: int
) -> AsyncIterator[ServedCluster]:
    require_memory(coverage * size.total_bytes + BESIDE_BYTES, f"a cluster of {size}")
    read_seconds = 0.0
    if bench.wants("start"):
        with bench.stages.stage(f"{size.name}: reading all files, twice"):
            read_seconds = await asyncio.to_thread(seconds_to_read, whole_files(model))
    async with AsyncExitStack() as stack:
        with bench.stages.stage(f"{size.name}: starting the cluster, coverage {coverage}"):
            running = served(model, coverage=coverage, flags=bench.options.serve.split())
            cluster = await stack.enter_async_context(running)
        if bench.wants("start"):
            start = Start(size, coverage, cluster.seconds_to_ready, read_seconds)
            bench.found.starts.append(start)
            bench.report()
        yield cluster


async def _taken(size: Size, cluster: ServedCluster, moment: str) -> list[Taken]:
    admin = Admin(cluster.members["router"].address, metrics_address="")
    try:
        hosted = await admin.hosted()
    finally:
        await admin.close()
    return [
        Taken(
            moment,
            name,
            anonymous_bytes(member.pid),
            len(hosted[member.address]) * size.expert_bytes,
        )
        for name, member in sorted(cluster.experts.items())
    ]


async def _others(bench: Bench, size: Size) -> None:
    """Engines of others, once the cluster is gone."""
    options, found, stages = bench.options, bench.found, bench.stages
    if bench.wants("prompt"):
        require_memory(size.total_bytes + BESIDE_BYTES, f"transformers with {size}")
        model = checkpoint_of(size, stages)
        theirs = await transformers_first_token_ms(model, max(3, bench.num_rounds), stages)
        ours = found.first_tokens[size.name].ours
        found.first_tokens[size.name] = FirstToken(ours, theirs)
        bench.report()
    if options.llama_bench is not None:
        with stages.stage("llama-bench"):
            found.peers += await llama_bench(options.llama_bench, options.gguf)
        bench.report()
    if options.vllm is not None:
        model = checkpoint_of(size, stages)
        with stages.stage("vllm bench latency"):
            found.peers += await vllm_bench(options.vllm, model, options.requests)


def parts_of(text: str) -> tuple[str, ...]:
    """The parts of a flag that names some; raises what argparse shows when one is none."""
    parts = tuple(part.strip() for part in text.split(","))
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser(
        "real_size",
        COMPARED,
        ("--parts start,tokens --requests 1,16", "--llama-bench ./llama-bench --gguf model.gguf"),
    )
    described = "; ".join(f"{part}: {meaning}" for part, meaning in PARTS.items())
    parser.add_argument(
        "--parts",
        type=parts_of,
        metavar="PART[,PART…]",
        default=tuple(PARTS),
        help=f"what to measure, all by default; {described}",
    )
    add_numbers(parser, "requests", REQUESTS, "numbers of concurrent requests")
    _add_others(parser)
    return run_bench(parser, measure, arguments)


def _add_others(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--serve",
        default="",
        metavar="FLAGS",
        help="further flags of `moesaic serve`, as --serve='--threads 2'",
    )
    parser.add_argument(
        "--llama-bench", type=Path, metavar="PROGRAM", help="measure llama.cpp too, on --gguf"
    )
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="the model for llama-bench")
    parser.add_argument(
        "--vllm", type=Path, metavar="PROGRAM", help="measure vLLM too, on the same checkpoint"
    )


if __name__ == "__main__":
    sys.exit(main())
