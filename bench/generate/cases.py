"""What one model at one number of requests showed, and the figures of it."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.generate.transformers_load import Setting
from bench.harness.statistics import Spread, ratio_of, spread_of
from bench.rig.generated import Generated
from services.cli.bench.statistics import percentile
from services.router.times.receipt import Parts

CLIENT, ROUTER, TRANSFORMERS = "at the client", "at the router", "transformers"
SERVICES = ("gateway", "router", "experts")

Figure = Callable[[Generated], float]


def seat(party: str, transport: str) -> str:
    """Who had what was generated over a transport: the client or the router."""
    return f"{party}, {transport}"


@dataclass(frozen=True)
class Case:
    """One model at one number of requests, over each of the transports.

    `samples` are by seat; transformers is there once for each of the finalists among its settings.
    `kernel_micros` is the CPU time of the trunk's kernels on as many rows; without kernels there is
    none.
    """

    model: str
    num_requests: int
    transports: Sequence[str]
    finalists: Sequence[Setting]
    probes: Mapping[Setting, Generated]
    samples: Mapping[str, Sequence[Generated]]
    kernel_micros: Sequence[float]

    @property
    def label(self) -> str:
        """The case in a few words."""
        return f"{self.model}, {self.num_requests}"

    @property
    def best(self) -> Setting:
        """Transformers' setting with the best median over all rounds: what the clusters are
        compared with.
        """
        return max(
            self.finalists,
            key=lambda setting: spread_of(_rates_of(self.samples[str(setting)])).median,
        )

    @property
    def theirs(self) -> Sequence[Generated]:
        """Transformers' samples with that setting, one for each round."""
        return self.samples[str(self.best)]

    def ours(self, party: str, transport: str) -> Sequence[Generated]:
        """A party's samples, one for each round."""
        return self.samples[seat(party, transport)]

    def speed_up(self, party: str, transport: str) -> Spread:
        """A party's tokens per second over transformers' of the same round."""
        return ratio_of(_rates_of(self.ours(party, transport)), _rates_of(self.theirs))

    def first_token_ratio(self, transport: str) -> Spread:
        """The client's time to the first token, the median of its requests, over transformers',
        which is its prefill.
        """
        ours = [first_token_ms(sample) for sample in self.ours(CLIENT, transport)]
        return ratio_of(ours, [first_token_ms(sample) for sample in self.theirs])

    def ratio(self, figure: Figure, party: str, transport: str, to: str) -> Spread:
        """A party's figure over one transport, over that over another of the same round."""
        ours, theirs = self.ours(party, transport), self.ours(party, to)
        return ratio_of(list(map(figure, ours)), list(map(figure, theirs)))

    def same_tokens(self, transport: str, to: str) -> str:
        """How many of the client's requests had the same tokens over both in a round."""
        return _same_tokens(self.ours(CLIENT, transport), self.ours(CLIENT, to))

    def repeated_tokens(self, transport: str) -> str:
        """How many of them had the same tokens as in the round before."""
        samples = self.ours(CLIENT, transport)
        return _same_tokens(samples[1:], samples[:-1])


def tokens_per_second(sample: Generated) -> float:
    """Prompts counted in the time."""
    return sample.tokens_per_second


def first_token_ms(sample: Generated) -> float:
    """The median of the requests."""
    return statistics.median(sample.first_token_ms)


def between_tokens_ms(rank: int) -> Figure:
    """A percentile of the time between neighbouring tokens."""
    return lambda sample: percentile(sample.inter_token_ms, rank)


def cpu_seconds(service: str) -> Figure:
    """For 1,000 new tokens."""
    return lambda sample: sample.cpu_seconds[service] / sample.num_tokens * 1e3


def decode_step_ms(sample: Generated) -> float:
    """All parts of a decode step."""
    return sum(decode_parts_ms([sample]).values())


def decode_parts_ms(samples: Sequence[Generated]) -> dict[str, float]:
    """Of a decode step, from the receipts."""
    phases = [receipt.decode for sample in samples for receipt in sample.receipts]
    steps = sum(phase.steps for phase in phases)
    return {
        part: sum(getattr(phase, f"{part}_nanos") for phase in phases) / steps / 1e6
        for part in vars(Parts())
    }


def _rates_of(samples: Sequence[Generated]) -> list[float]:
    return list(map(tokens_per_second, samples))


def _same_tokens(ours: Sequence[Generated], theirs: Sequence[Generated]) -> str:
    are_same = [
        list(mine) == list(other)
        for one, another in zip(ours, theirs, strict=True)
        for mine, other in zip(one.token_ids, another.token_ids, strict=True)
    ]
    return f"{sum(are_same)} of {len(are_same)}"
