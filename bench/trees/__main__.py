"""`python -m bench.trees`: tokens a second of this tree's cluster and another tree's, in turn."""

import asyncio
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench.generate.cases import decode_parts_ms
from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.harness.table import Table
from bench.real_size.served import served
from bench.real_size.tokens import NUM_NEW_TOKENS, NUM_PROMPT_TOKENS, decode_rate
from bench.rig.checkpoints import OLMOE_470M, whole_model
from bench.rig.client_load import ClientLoad
from bench.rig.generated import Generated
from bench.rig.processes import cpu_nanos
from bench.rig.prompts import Prompts, text_prompts
from bench.trees.products import HEADINGS, KINDS, ROWS, SHAPES, Products, measured_products

PARTS = ("products", "tokens")
REQUESTS = (1, 16, 64)
BEFORE, NOW = "before", "now"
HERE = Path(__file__).parents[2]

COMPARED = (
    f"{NUM_NEW_TOKENS} greedy tokens for prompts of {NUM_PROMPT_TOKENS} tokens of real text, by "
    "the 470 M model unless said, at a client of the gateway: `moesaic serve` with two expert "
    "services and its defaults, of another tree of this project (before) and of this one (now), "
    "in turn. Prompts are counted in the time but for decode. Before that, products of few rows by "
    "both trees' kernels, in turn in one process, with weights in small and in huge pages."
)


@dataclass(frozen=True)
class Served:
    """A tree's cluster: the numbers of its processes, and who asks it."""

    pids: Sequence[int]
    client: ClientLoad

    async def generate(self, prompts: Prompts) -> Generated:
        """What it generates, and the CPU time of all of its processes."""
        before = cpu_nanos(*self.pids)
        generated = await self.client.generate(prompts)
        generated.cpu_seconds = {"all": (cpu_nanos(*self.pids) - before) / 1e9}
        return generated


@dataclass(frozen=True)
class Case:
    """So many requests, and what each tree made of them: a sample for each round."""

    num_requests: int
    samples: Mapping[str, Sequence[Generated]]

    def rates(self, tree: str) -> list[float]:
        """Tokens a second, prompts counted in."""
        return [sample.tokens_per_second for sample in self.samples[tree]]

    def decode_rates(self, tree: str) -> list[float]:
        """Tokens a second while all requests decode."""
        return [decode_rate(sample.token_seconds) for sample in self.samples[tree]]

    def cores(self, tree: str) -> Spread:
        """How many of them its processes kept busy."""
        return spread_of([each.cpu_seconds["all"] / each.seconds for each in self.samples[tree]])


async def measure(options: Namespace, stages: Stages) -> Report:
    """Both trees, at every number of requests."""
    if not (options.before / "services").is_dir():
        raise BenchFailed(f"{options.before} is no tree of this project")
    with stages.stage("making or finding the checkpoint"):
        model = options.model or whole_model(OLMOE_470M)
    num_rounds = 2 if options.quick else options.rounds
    products: list[Products] = []
    if "products" in options.parts:
        with stages.stage("products", len(KINDS) * len(SHAPES) * len(ROWS)):
            products = await measured_products(options.before, HERE, num_rounds, stages.step)
    cases: list[Case] = []
    report = _report(products, cases)
    if "tokens" not in options.parts:
        return report
    async with AsyncExitStack() as stack:
        with stages.stage("starting both clusters"):
            clusters = {
                BEFORE: await _served(options.before, model, options.before_flags.split(), stack),
                NOW: await _served(HERE, model, options.flags.split(), stack),
            }
            await asyncio.sleep(options.settle_seconds)
        for count in options.requests:
            prompts = text_prompts(count, NUM_PROMPT_TOKENS)
            variants = {name: partial(each.generate, prompts) for name, each in clusters.items()}
            with stages.stage(f"requests: {count}", num_rounds + 1):
                samples = await interleaved(variants, num_rounds, after_round=stages.step)
            cases.append(Case(count, samples))
            report = _report(products, cases)
            report.write(options.json, options.command)  # what is measured is not lost
    return report


async def _served(tree: Path, model: Path, flags: Sequence[str], stack: AsyncExitStack) -> Served:
    cluster = await stack.enter_async_context(served(model, coverage=1, flags=flags, tree=tree))
    client = ClientLoad(cluster.members["gateway"].address, num_new_tokens=NUM_NEW_TOKENS)
    stack.push_async_callback(client.close)
    return Served([member.pid for member in cluster.members.values()], client)


def _report(products: Sequence[Products], cases: Sequence[Case]) -> Report:
    report = Report("trees", COMPARED)
    if products:
        table = Table("products on one thread, GB of weights a second", HEADINGS)
        for each in products:
            table.add(*each.cells())
        report.tables.append(table)
        report.samples["products"] = [asdict(each) for each in products]
    if cases:
        report.tables += [_rates(cases), _parts(cases)]
    for case in cases:
        report.samples[str(case.num_requests)] = {
            tree: [sample.as_object() for sample in samples]
            for tree, samples in case.samples.items()
        }
    return report


def _rates(cases: Sequence[Case]) -> Table:
    table = Table(
        "tokens per second",
        (
            *("requests", f"all, {BEFORE}", NOW, f"{NOW} ÷ {BEFORE}"),
            *(f"decode, {BEFORE}", NOW, f"{NOW} ÷ {BEFORE}", f"cores busy, {BEFORE}", NOW),
        ),
    )
    for case in cases:
        cells: list[Spread] = []
        for figure in (case.rates, case.decode_rates):
            before, now = figure(BEFORE), figure(NOW)
            cells += [spread_of(before), spread_of(now), ratio_of(now, before)]
        table.add(str(case.num_requests), *cells, case.cores(BEFORE), case.cores(NOW))
    return table


def _parts(cases: Sequence[Case]) -> Table:
    table = Table(
        "a decode step's parts by the receipts, ms",
        ("requests", "tree", *decode_parts_ms(cases[0].samples[NOW])),
    )
    for case in cases:
        for tree, samples in case.samples.items():
            table.add(str(case.num_requests), tree, *decode_parts_ms(samples).values())
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser("trees", COMPARED, ("--before ../before --requests 1,64",))
    parser.add_argument(
        "--before",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the other tree, whose modules in C were built in place",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        help="what to measure (default: both)",
    )
    parser.add_argument(
        "--settle-seconds",
        type=float,
        default=20.0,
        help="to wait until clusters have nothing left to do behind their start "
        "(default: %(default)s)",
    )
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="another checkpoint")
    add_numbers(parser, "requests", REQUESTS, "numbers of concurrent requests")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    for flag, which in (("--flags", "this tree's"), ("--before-flags", "the other tree's")):
        parser.add_argument(
            flag, default="", metavar="FLAGS", help=f"further flags of {which} `moesaic serve`"
        )
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
