"""`python -m bench.placement`: recorded routing replayed to planned placements, in figures alone
and live.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from bench.harness.command import add_numbers, bench_parser, run_bench
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.placement.cluster import BALANCED, CACHED, EPLB, EVEN, READ, Cluster, Shape
from bench.placement.drift import drifts
from bench.placement.live import measure_live
from bench.placement.live_tables import add_live
from bench.placement.planner import timings
from bench.placement.recording import given, recordings
from bench.placement.replay import Replayed, replayed
from bench.placement.tables import add_drifts, add_replays, add_timings
from bench.placement.text import TOPICS, WINDOW
from bench.placement.traffic import DECODE_BATCH, traffics
from services.model.checkpoint import Checkpoint
from services.router.load.recording import Recording
from services.runtime.embedded_model import EMBEDDED_MODEL

SERVICES, SLOTS = (2, 4, 8), (16, 20, 24)
QUICK_SERVICES, QUICK_SLOTS = (4,), (16, 20)
NUM_ROUNDS, QUICK_ROUNDS = 5, 1
DRIFT_SERVICES, DRIFT_SLOTS = 4, (20, 24)
REPLAY, LIVE = "replay", "live"
LIVE_WINDOWS, QUICK_WINDOWS = 16, 8
QUICK_TOPICS = 2

COMPARED = (
    f"strategies for where experts are: {EVEN} (spread by number, one replica each), {EPLB} "
    "(greedy replicas, packed "
    f"from nothing) and {BALANCED} (ours). The shipped model's gates chose experts for text of "
    f"{len(TOPICS)} topics "
    "that its training held out; a plan is made by one half and judged on the other, per layer "
    f"and step: of {WINDOW} "
    f"tokens, and of {DECODE_BATCH} sequences that decode. Whatever the strategy, a layer's pairs "
    "are split over the "
    "replicas in the same way. These are counts, the same on every machine; only the planner's "
    "time is measured, and "
    "what the same routing does live, through a router's dispatcher to SIMULATED devices."
)


async def measure(options: Namespace, stages: Stages) -> Report:
    """Replays, then drifts of topic, then the time of plans for a large model; and the same routing
    live.
    """
    report = Report("placement", COMPARED)
    checkpoint = Checkpoint.open(options.model)
    expert_bytes = checkpoint.expert_bytes(checkpoint.moe_layers[0])
    recorded = given(options.recording) if options.recording else recordings(stages)
    if options.recording:
        report.notes.append(
            f"not the held-out text, but recordings: {', '.join(map(str, options.recording))}"
        )
    if options.only != LIVE:
        _replay(report, recorded, expert_bytes, options, stages)
    if options.only != REPLAY:
        num_topics, num_windows = (
            (QUICK_TOPICS, QUICK_WINDOWS) if options.quick else (len(recorded), LIVE_WINDOWS)
        )
        shape, rounds = await measure_live(
            options.model, recorded[:num_topics], stages, num_windows=num_windows
        )
        add_live(report, shape, rounds, expert_bytes)
    return report


def _replay(
    report: Report,
    recorded: Sequence[Recording],
    expert_bytes: int,
    options: Namespace,
    stages: Stages,
) -> None:
    services = options.services or (QUICK_SERVICES if options.quick else SERVICES)
    slots = options.slots or (QUICK_SLOTS if options.quick else SLOTS)
    add_replays(report, _replays(recorded, services, slots, stages), expert_bytes)
    if len(recorded) > 1:
        _drift(report, recorded, expert_bytes, stages)
    num_rounds = QUICK_ROUNDS if options.quick else NUM_ROUNDS
    with stages.stage("planning for a large model", 2 * num_rounds):
        add_timings(
            report, {name: timings(name, num_rounds, stages.step) for name in (EPLB, BALANCED)}
        )


def _replays(
    recorded: Sequence[Recording], services: Sequence[int], slots: Sequence[int], stages: Stages
) -> list[Replayed]:
    found = []
    kinds = traffics(recorded)
    for num_services in services:
        with stages.stage(f"replaying to {num_services} services", len(slots)):
            for num_slots in slots:
                # That one has a replica of each, and more memory changes nothing.
                strategies = (EVEN, EPLB, BALANCED) if num_slots == slots[0] else (EPLB, BALANCED)
                for prices in (CACHED, READ):
                    start = Cluster.even(_shape(recorded[0], num_services, num_slots), prices)
                    found += [replayed(start, strategy, kinds) for strategy in strategies]
                stages.step()
    return found


def _drift(
    report: Report, recorded: Sequence[Recording], expert_bytes: int, stages: Stages
) -> None:
    with stages.stage("from topic to topic", len(DRIFT_SLOTS)):
        for num_slots in DRIFT_SLOTS:
            start = Cluster.even(_shape(recorded[0], DRIFT_SERVICES, num_slots), CACHED)
            found = {strategy: drifts(start, strategy, recorded) for strategy in (EPLB, BALANCED)}
            add_drifts(report, start.shape, found, expert_bytes)
            stages.step()


def _shape(recording: Recording, num_services: int, num_slots: int) -> Shape:
    return Shape(recording.num_layers, recording.num_experts, num_services, num_slots)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; its exit code."""
    parser = bench_parser(
        "placement", COMPARED, ("--services 4 --slots 16,20", "--only live --recording mine.npz")
    )
    add_numbers(parser, "services", (), "numbers of services; by default 2,4,8, or 4 with --quick")
    add_numbers(
        parser,
        "slots",
        (),
        "slots of a layer over all services; by default 16,20,24, or 16,20 with --quick",
    )
    parser.add_argument(
        "--only",
        choices=(REPLAY, LIVE),
        help="run one part: without services, or with simulated ones",
    )
    parser.add_argument(
        "--recording",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="recordings by `moesaic routing record`, a topic each, in the place of the held-out "
        "text",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=EMBEDDED_MODEL,
        help="checkpoint that was recorded (default: the shipped model)",
    )
    return run_bench(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
