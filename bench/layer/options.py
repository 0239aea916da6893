"""The router's options beside the exact layer in float32: what they save on the wire and cost in
precision.
"""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.rounds import interleaved
from bench.harness.statistics import Spread, spread_of
from bench.harness.table import Table
from bench.layer.path import NUM_LAYERS, LayerPath, LayerSample
from bench.layer.tokens import NUM_PROMPTS, NUM_TOKENS, Generator, TokenErrors
from bench.rig.checkpoints import Shape, experts_only
from bench.rig.expert_members import expert_members
from bench.rig.peers import connected, dispatcher_over
from bench.rig.processes import services_running
from bench.rig.transports import VARIABLES
from services.model.checkpoint import Checkpoint
from services.router.dispatch.combine import Combination, ExactCombine, PartialCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.runtime.embedded_model import EMBEDDED_MODEL

NUM_SERVICES = 2
NUM_ROWS = 64
# Frames of the size that a layer of OLMoE-1B-7B has, with experts that take little memory in
# float32.
WIDE = Shape(2048, 1, 16, 8, 64)


@dataclass(frozen=True)
class Option:
    """How rows are combined and travel."""

    name: str
    combine: Combination
    wire_dtype: torch.dtype


EXACT = Option("exact", ExactCombine(), torch.float32)
OPTIONS = (
    EXACT,
    Option("partial", PartialCombine(), torch.float32),
    Option("bfloat16 on the wire", ExactCombine(), torch.bfloat16),
    Option("both", PartialCombine(), torch.bfloat16),
)


@dataclass(frozen=True)
class Errors:
    """|Δrow| ÷ |row| of a layer's output against the exact one's, over all rows and gates."""

    largest: float
    mean: float


async def add_options(report: Report, transport: str, num_rounds: int, stages: Stages) -> None:
    """Measure every option over a transport and add its tables: frames and errors of one layer,
    then tokens of the shipped model.
    """
    shapes = (
        ("64 rows x 192, top-2 of 16 (shipped)", EMBEDDED_MODEL, 2),
        ("64 rows x 2048, top-8 of 16", experts_only(WIDE), 8),
    )
    for name, model, top_k in shapes:
        async with AsyncExitStack() as stack:
            with stages.stage(f"options in float32, {name}, {transport}", num_rounds + 1):
                dispatchers = await _dispatchers(model, VARIABLES[transport], stack)
                await _add_layer(
                    report, f"{name}, {transport}", model, top_k, dispatchers, num_rounds, stages
                )
            if model is EMBEDDED_MODEL:
                with stages.stage("tokens with each option"):
                    await _add_tokens(report, dispatchers)
    report.notes.append(
        "errors of a layer: the largest and the mean of |Δrow| ÷ |row| against exact; with "
        "partial a reply is smaller "
        "where a row has several experts on one service"
    )


async def _dispatchers(
    model: Path, variables: Mapping[str, str], stack: AsyncExitStack
) -> dict[str, Dispatcher]:
    checkpoint = Checkpoint.open(model)
    members = expert_members(model, NUM_SERVICES, dtype="float32")
    servers = await stack.enter_async_context(services_running(members, variables))
    addresses = [server.address for server in servers]
    peers = await stack.enter_async_context(connected(checkpoint, addresses, dtype=torch.float32))
    return {
        option.name: dispatcher_over(
            checkpoint, peers, wire_dtype=option.wire_dtype, combine=option.combine
        )
        for option in OPTIONS
    }


async def _add_layer(
    report: Report,
    name: str,
    model: Path,
    top_k: int,
    dispatchers: Mapping[str, Dispatcher],
    num_rounds: int,
    stages: Stages,
) -> None:
    checkpoint = Checkpoint.open(model)
    paths = {
        option: LayerPath(
            checkpoint,
            dispatcher,
            num_rows=NUM_ROWS,
            top_k=top_k,
            service_pids=(),
            dtype=torch.float32,
            exchanges=False,  # which tell no bytes, and do not sum on services
        )
        for option, dispatcher in dispatchers.items()
    }
    samples = await interleaved(paths, num_rounds, after_round=stages.step)
    errors = await _errors(paths)
    table = Table(
        f"options in float32, {name}",
        (
            "option",
            "frames",
            "bytes/frame out",
            "in",
            "wire µs",
            "combine µs",
            "all µs",
            "largest error",
            "mean error",
        ),
    )
    for option, taken in samples.items():
        table.add(
            option, *_frames(taken), *_times(taken), errors[option].largest, errors[option].mean
        )
    report.tables.append(table)
    report.samples[f"options, {name}, ns"] = {
        option: [vars(one) for one in taken] for option, taken in samples.items()
    }
    report.samples[f"options, {name}, relative errors"] = {
        option: vars(found) for option, found in errors.items()
    }


def _frames(taken: Sequence[LayerSample]) -> list[float]:
    """How many a layer has, and the bytes of one: the message out, the rows back."""
    frames = [frame for sample in taken for frame in sample.frame_bytes]
    return [len(frames) / len(taken), *map(statistics.fmean, zip(*frames, strict=True))]


def _times(taken: Sequence[LayerSample]) -> list[Spread]:
    parts = [[sample.parts[part] for sample in taken] for part in ("wire", "combine")]
    return [spread_of(nanos).scaled(1e-3) for nanos in (*parts, [sample.total for sample in taken])]


async def _errors(paths: Mapping[str, LayerPath]) -> dict[str, Errors]:
    found: dict[str, list[torch.Tensor]] = {name: [] for name in paths}
    for _ in range(NUM_LAYERS):
        for path in paths.values():
            await path()
        exact = paths[EXACT.name].output
        for name, path in paths.items():
            found[name].append((path.output - exact).norm(dim=1) / exact.norm(dim=1))
    return {
        name: Errors(float(torch.cat(all_).max()), float(torch.cat(all_).mean()))
        for name, all_ in found.items()
    }


async def _add_tokens(report: Report, dispatchers: Mapping[str, Dispatcher]) -> None:
    generator = Generator(Checkpoint.open(EMBEDDED_MODEL), torch.float32)
    exact = await generator.generate(dispatchers[EXACT.name])
    errors: dict[str, TokenErrors] = {}
    for name, dispatcher in dispatchers.items():
        errors[name] = await generator.errors(dispatcher, exact)
    table = Table(
        f"greedy tokens of the shipped model in float32, {NUM_PROMPTS} prompts x {NUM_TOKENS}, "
        "against exact",
        (
            "option",
            "% of tokens that differ",
            "continuations that differ",
            "% on the same text",
            "largest |Δlogit|",
        ),
    )
    for name, found in errors.items():
        table.add(
            name,
            100 * found.share_free,
            found.num_continuations,
            100 * found.share_forced,
            found.largest_logit_difference,
        )
    report.tables.append(table)
    report.samples["options, tokens"] = {name: vars(found) for name, found in errors.items()}
    report.notes.append(
        "% on the same text and |Δlogit|: every option reads the exact continuation; in the free "
        "one the first token "
        "that differs changes all that follow"
    )
