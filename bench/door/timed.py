"""When the first tokens of some requests came, whoever brought them, and what the gateway took."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.cli.bench.statistics import percentile


@dataclass
class Timed:
    """Requests that started together.

    `first_seconds` has for each when its first token came, from the start; `seconds` is when the
    last one was done.
    """

    seconds: float
    num_tokens: int
    first_seconds: Sequence[float]
    gateway_cpu_seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """New tokens over the whole time, prompts included."""
        return self.num_tokens / self.seconds

    @property
    def first_token_ms(self) -> float:
        """Median time to the first token."""
        return percentile(self.first_seconds, 50) * 1e3

    @property
    def gateway_micros(self) -> float:
        """CPU time of the gateway for each token."""
        return self.gateway_cpu_seconds * 1e6 / self.num_tokens
