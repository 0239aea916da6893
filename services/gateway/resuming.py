"""Goes on with what another gateway began: reads what a client says of it, and catches up."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moesaic.v1 import generation_pb2 as pb
from services.gateway.continuation import Continuation
from services.wire.errors import InvalidRequest
from services.wire.sampling import Sampling

# Tokens that are turned into text before others have a turn of the loop.
PORTION = 256


@dataclass(frozen=True)
class Resumed:
    """The seed of a request that goes on, and the tokens that its client has; none of either where
    it begins.
    """

    seed: int | None
    token_ids: Sequence[int]

    def sampling(self, wanted: Sampling) -> Sampling:
        """How its next tokens are drawn."""
        return wanted if self.seed is None else replace(wanted, seed=self.seed)

    def check_within(self, max_new_tokens: int) -> None:
        """Raises InvalidRequest for more tokens than the request asks for."""
        if len(self.token_ids) > max_new_tokens:
            raise InvalidRequest(
                f"resume.generated_token_ids has {len(self.token_ids)} elements; at most "
                f"{max_new_tokens} are generated"
            )

    async def catch_up(self, continuation: Continuation) -> None:
        """Bring a continuation to where the client is, which has the text."""
        for start in range(0, len(self.token_ids), PORTION):
            continuation.feed(self.token_ids[start : start + PORTION])
            await asyncio.sleep(0)


NOTHING = Resumed(None, ())


def read_resume(request: pb.GenerateRequest, *, max_context: int) -> Resumed:
    """What a request with `resume` goes on after.

    Raises InvalidRequest, naming the field and the limit; nothing longer is looked at.
    """
    token_ids, seed = request.resume.generated_token_ids, request.resume.seed
    if len(token_ids) >= max_context:
        raise InvalidRequest(
            f"resume.generated_token_ids has {len(token_ids)} elements; the context takes "
            f"{max_context} with the prompt"
        )
    if not seed and not request.sampling.HasField("seed"):
        raise InvalidRequest("resume.seed is not said; `started` has it, in the first message")
    if request.sampling.HasField("seed") and request.sampling.seed != seed:
        raise InvalidRequest(
            f"sampling.seed is {request.sampling.seed}, and resume.seed {seed}: they must agree"
        )
    return Resumed(seed, tuple(token_ids))
