"""The figures of a load, from its samples."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.cli.bench.failures import FailureReason, reasons_of
from services.cli.bench.objectives import Objective, num_good
from services.cli.bench.receipts import Spent, spent
from services.cli.bench.run import LoadRun
from services.cli.bench.statistics import Distribution, distribution_of, per_second


@dataclass(frozen=True)
class Latencies:
    """Latencies in seconds; each is None where no request had one.

    The first and the last count completed requests, as does the time per token, once each; `itl`
    counts every time between two tokens once. `late` is how long after it was due a request was
    sent, failed ones included.
    """

    ttft: Distribution | None
    itl: Distribution | None
    tpot: Distribution | None
    e2e: Distribution | None
    late: Distribution | None


@dataclass(frozen=True)
class Client:
    """How well the client kept up."""

    late_share: float
    late: Distribution | None
    cpu_seconds: float
    cpu_seconds_per_1000_tokens: float


@dataclass(frozen=True)
class Figures:
    """What a load came to.

    Rates are over `seconds`, from the beginning to the last answer. Output tokens are all that
    came, input tokens those of completed requests. `goodput` and `good_share` are None without
    objectives, `spent` where requests were completed and their server told no receipt.
    """

    label: str
    seconds: float
    num_completed: int
    num_failed: int
    num_unfinished: int
    reasons: Sequence[FailureReason]
    requests_per_second: float
    output_tokens_per_second: float
    input_tokens_per_second: float
    goodput_requests_per_second: float | None
    good_share: float | None
    latencies: Latencies
    spent: Spent | None
    client: Client


def figures_of(run: LoadRun, objectives: Sequence[Objective]) -> Figures:
    """The figures of a load that has ended or was broken off."""
    completed = [sample.completion for sample in run.samples if sample.completion is not None]
    receipts = [one.receipt for one in completed if one.receipt.end_to_end_nanos]
    num_unfinished = sum(sample.ended_nanos is None for sample in run.samples)
    num_tokens = sum(sample.num_tokens for sample in run.samples)
    good = num_good(run.samples, objectives) if objectives else None
    num_judged = len(run.samples) - num_unfinished
    seconds = run.seconds
    return Figures(
        label=run.load.label,
        seconds=seconds,
        num_completed=len(completed),
        num_failed=run.num_failed,
        num_unfinished=num_unfinished,
        reasons=reasons_of(run.samples),
        requests_per_second=per_second(len(completed), seconds),
        output_tokens_per_second=per_second(num_tokens, seconds),
        input_tokens_per_second=per_second(
            sum(one.usage.prompt_tokens for one in completed), seconds
        ),
        goodput_requests_per_second=None if good is None else per_second(good, seconds),
        good_share=good / num_judged if good is not None and num_judged else None,
        latencies=_latencies(run),
        spent=spent(receipts) if receipts or not completed else None,
        client=_client(run, num_tokens),
    )


def _latencies(run: LoadRun) -> Latencies:
    completed = [sample for sample in run.samples if sample.completion is not None]
    return Latencies(
        ttft=_distribution([sample.first_token_seconds for sample in completed]),
        itl=distribution_of(
            [seconds for sample in completed for seconds in sample.interval_seconds]
        ),
        tpot=_distribution([sample.per_token_seconds for sample in completed]),
        e2e=_distribution([sample.end_to_end_seconds for sample in completed]),
        late=_distribution([sample.late_seconds for sample in run.samples]),
    )


def _distribution(samples: Sequence[float | None]) -> Distribution | None:
    return distribution_of([sample for sample in samples if sample is not None])


def _client(run: LoadRun, num_tokens: int) -> Client:
    lag = run.lag
    per_1000 = lag.cpu_seconds / num_tokens * 1000 if num_tokens else 0.0
    return Client(lag.late_share, distribution_of(lag.late_seconds), lag.cpu_seconds, per_1000)
