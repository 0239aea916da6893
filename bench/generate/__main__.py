"""`python -m bench.generate`: tokens per second and latency of a cluster, against transformers'
static batch.
"""

import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.generate.cases import CLIENT, ROUTER, Case, seat
from bench.generate.kinds import Kind, add_threads, kinds_of
from bench.generate.router_load import RouterLoad
from bench.generate.tables import fill
from bench.generate.transformers_load import (
    Setting,
    TransformersLoad,
    best_by_threads,
    settings_for,
    transformers_running,
)
from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import Variants, interleaved
from bench.kernels.load import KERNELS, KernelLoad, kernels_running
from bench.kernels.model import MOST_TOKENS
from bench.kernels.operations import TRUNK_KERNELS
from bench.rig.certificates import Certificates
from bench.rig.checkpoints import OLMOE_470M, whole_model
from bench.rig.client_load import ClientLoad
from bench.rig.cluster import Cluster, Load, cluster_running
from bench.rig.generated import Generated
from bench.rig.prompts import Prompts, text_prompts
from bench.rig.transports import TLS, VARIABLES, add_transports
from services import kernels
from services.model.checkpoint import Checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.runtime.roles import Role

CONCURRENCY = (1, 4, 16, 64)
QUICK_CONCURRENCY = (1, 16)
NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 64, 48
NUM_PROBES = 2
MODELS = ("shipped", "470m")

COMPARED = (
    f"{NUM_NEW_TOKENS} greedy tokens past the end of sequence for prompts of {NUM_PROMPT_TOKENS} "
    "tokens of real text, "
    "all requests at once: a cluster (gateway, router, two experts, one thread each unless said) "
    "for each transport, one of which works at a time, seen by a client of the gateway "
    "and by a client of the router, against `transformers` generate with the same requests as one "
    "static batch, in "
    "the same element type, with the experts implementation and the number of threads (1 or 2) "
    "that are best for it. "
    "Prompts are counted in the time."
)


@dataclass(frozen=True)
class Served:
    """A cluster of one kind, and who asks it."""

    cluster: Cluster
    client: ClientLoad
    router: RouterLoad


@dataclass(frozen=True)
class Parties:
    """Everybody that is measured, running: a cluster of each kind, by its name."""

    served: Mapping[str, Served]
    transformers: TransformersLoad
    kernels: KernelLoad | None


async def measure(options: Namespace, stages: Stages) -> Report:
    """Every model at every number of requests."""
    models: Sequence[str] = options.models or (("shipped",) if options.quick else MODELS)
    counts: Sequence[int] = options.requests or (
        QUICK_CONCURRENCY if options.quick else CONCURRENCY
    )
    cases: list[Case] = []
    report = Report("generate", COMPARED)
    for name in models:
        with stages.stage(f"{name}: making or finding the checkpoint"):
            model = EMBEDDED_MODEL if name == "shipped" else whole_model(OLMOE_470M)
        kinds = kinds_of(options.transports, options.threads)
        found = _of_model(name, model, counts, kinds, 3 if options.quick else 7, stages)
        async for case in found:
            cases.append(case)
            report = Report("generate", COMPARED)
            fill(report, cases)
            report.write(
                options.json, options.command
            )  # a case takes minutes: what is measured is not lost
    return report


async def _of_model(
    name: str,
    model: Path,
    counts: Sequence[int],
    kinds: Sequence[Kind],
    num_rounds: int,
    stages: Stages,
) -> AsyncIterator[Case]:
    prompts, checkpoint = text_prompts(max(counts), NUM_PROMPT_TOKENS), Checkpoint.open(model)
    async with AsyncExitStack() as stack:
        with stages.stage(f"{name}: starting the clusters, and transformers"):
            parties = await _parties(checkpoint, model, kinds, stack)
        for count in counts:
            yield await _case(name, checkpoint, parties, prompts[:count], num_rounds, stages)


async def _parties(
    checkpoint: Checkpoint, model: Path, kinds: Sequence[Kind], stack: AsyncExitStack
) -> Parties:
    served = {kind.name: await _served(model, kind, stack) for kind in kinds}
    transformers = await stack.enter_async_context(
        transformers_running(model, num_new_tokens=NUM_NEW_TOKENS)
    )
    loads: dict[str, KernelLoad] = {}
    if kernels.AVAILABLE:
        loads = await stack.enter_async_context(
            kernels_running(model, checkpoint.dtype, (KERNELS,))
        )
    return Parties(served, transformers, loads.get(KERNELS))


async def _served(model: Path, kind: Kind, stack: AsyncExitStack) -> Served:
    variables, as_client, as_gateway = VARIABLES[kind.transport], None, None
    if kind.transport == TLS:
        folder = stack.enter_context(TemporaryDirectory(prefix="moesaic-bench-"))
        certificates = Certificates(Path(folder))
        variables = {**variables, **certificates.variables}
        as_client, as_gateway = certificates.of(Role.CLIENT), certificates.of(Role.GATEWAY)
    cluster = await stack.enter_async_context(
        cluster_running(model, variables, threads=kind.threads, tls=as_client)
    )
    client = ClientLoad(cluster.gateway.address, num_new_tokens=NUM_NEW_TOKENS, tls=as_client)
    stack.push_async_callback(client.close)
    router = RouterLoad(cluster.router.address, num_new_tokens=NUM_NEW_TOKENS, tls=as_gateway)
    stack.push_async_callback(router.close)
    return Served(cluster, client, router)


async def _case(
    name: str,
    checkpoint: Checkpoint,
    parties: Parties,
    prompts: Prompts,
    num_rounds: int,
    stages: Stages,
) -> Case:
    settings = settings_for(checkpoint, len(prompts) * NUM_PROMPT_TOKENS)
    probes = {}
    with stages.stage(
        f"{name}, requests: {len(prompts)}, looking for transformers' best setting", len(settings)
    ):
        for setting in settings:
            probes[setting] = await _probe(parties.transformers, setting, prompts)
            stages.step()
    finalists = best_by_threads(probes)
    with stages.stage(f"{name}, requests: {len(prompts)}", num_rounds + 1):
        samples = await interleaved(
            _variants(parties, finalists, prompts), num_rounds, after_round=stages.step
        )
    kernel_micros = await _kernel_micros(parties.kernels, len(prompts), num_rounds)
    return Case(name, len(prompts), list(parties.served), finalists, probes, samples, kernel_micros)


def _variants(
    parties: Parties, finalists: Sequence[Setting], prompts: Prompts
) -> Variants[Generated]:
    def generate(party: str, served: Served) -> Callable[[], Awaitable[Generated]]:
        load: Load = served.client if party == CLIENT else served.router
        return partial(served.cluster.generate, load, prompts)

    return {
        # Transports next to each other, which are compared with each other.
        **{
            seat(party, transport): generate(party, served)
            for party in (CLIENT, ROUTER)
            for transport, served in parties.served.items()
        },
        **{
            str(setting): partial(parties.transformers.generate, setting, prompts)
            for setting in finalists
        },
    }


async def _kernel_micros(
    load: KernelLoad | None, num_requests: int, num_rounds: int
) -> list[float]:
    num_keys = NUM_PROMPT_TOKENS + NUM_NEW_TOKENS // 2
    if load is None or num_requests * num_keys > MOST_TOKENS:
        return []
    await load.prepare(num_requests, num_keys)
    return [await load.time(TRUNK_KERNELS) for _ in range(num_rounds)]


async def _probe(transformers: TransformersLoad, setting: Setting, prompts: Prompts) -> Generated:
    """The best of some runs; the first of a shape is slower than the rest."""
    runs = [await transformers.generate(setting, prompts) for _ in range(NUM_PROBES)]
    return min(runs, key=lambda run: run.seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser(
        "generate",
        COMPARED,
        (
            "--requests 1,16,64 --models shipped",
            "--transports native --threads 1,auto",
            "--transports native,tls --requests 16",
        ),
    )
    add_numbers(
        parser,
        "requests",
        (),
        "numbers of concurrent requests; by default 1,4,16,64, or 1,16 with --quick",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        help="which models; by default both, or the shipped one with --quick",
    )
    add_transports(parser, has_tls=True)
    add_threads(parser)
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
