"""What came out of one batch of requests, whoever generated it, and the figures that follow from
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from moesaic.v1 import common_pb2


@dataclass
class Generated:
    """A batch of requests that started together.

    `token_seconds` has for each request when its tokens came, from the start; `seconds` is when the
    last one was done.
    """

    seconds: float
    token_seconds: Sequence[Sequence[float]]
    token_ids: Sequence[Sequence[int]]
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    receipts: Sequence[common_pb2.LatencyReceipt] = ()

    @property
    def num_tokens(self) -> int:
        """New tokens of all requests."""
        return sum(map(len, self.token_ids))

    @property
    def tokens_per_second(self) -> float:
        """New tokens over the whole time, prompts included."""
        return self.num_tokens / self.seconds

    @property
    def first_token_ms(self) -> list[float]:
        """Time to the first token of each request."""
        return [times[0] * 1e3 for times in self.token_seconds]

    @property
    def inter_token_ms(self) -> list[float]:
        """Time between neighbouring tokens, of all requests."""
        return [
            (later - earlier) * 1e3
            for times in self.token_seconds
            for earlier, later in pairwise(times)
        ]

    def as_object(self) -> dict[str, object]:
        """The raw sample for JSON; token ids are left out."""
        return {
            "seconds": self.seconds,
            "token_seconds": self.token_seconds,
            "cpu_seconds": self.cpu_seconds,
        }
