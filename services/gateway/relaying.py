"""Has routers take the continuations of a request, and reads what comes of them."""

import time
from collections.abc import AsyncGenerator
from collections.abc import Sequence as Sequenced
from contextlib import aclosing

from moesaic.v1.router_pb2 import SequenceFinish
from services.gateway.continuation import Continuation
from services.gateway.merging import merged
from services.gateway.micro_batcher import MicroBatcher
from services.gateway.relay import ContinuationEnd, Piece, Relay
from services.gateway.request_trace import RequestTrace
from services.gateway.requests import CheckedRequest
from services.gateway.resuming import Resumed
from services.gateway.routers import Routers
from services.gateway.sequence import Finish, Sequence
from services.gateway.tokeniser import Tokeniser


class Relaying:
    """What every sequence goes through, from the queue to the end of its text; keeps nothing of
    it.
    """

    def __init__(self, tokeniser: Tokeniser, dispatcher: MicroBatcher, routers: Routers) -> None:
        self._tokeniser = tokeniser
        self._dispatcher = dispatcher
        self._routers = routers

    async def begin(
        self,
        wanted: CheckedRequest,
        resumed: Resumed,
        sequences: Sequenced[Sequence],
        trace: RequestTrace,
    ) -> AsyncGenerator[Piece | ContinuationEnd, None]:
        """What comes of them; of one it begins once a router has it."""
        if len(sequences) == 1:
            return (await self._relay(wanted, resumed, sequences[0], trace)).run()

        async def relay_one(
            sequence: Sequence, choice: int
        ) -> AsyncGenerator[Piece | ContinuationEnd, None]:
            relay = await self._relay(wanted, resumed, sequence, trace, choice)
            async with aclosing(relay.run()) as events:
                async for event in events:
                    yield event

        return merged([relay_one(each, choice) for choice, each in enumerate(sequences)])

    async def _relay(
        self,
        wanted: CheckedRequest,
        resumed: Resumed,
        sequence: Sequence,
        trace: RequestTrace,
        choice: int = 0,
    ) -> Relay:
        """Have a router take it, where anything is left to be generated."""
        detokeniser = self._tokeniser.detokeniser(
            sequence.order.prompt_token_ids,
            keep_special_tokens=wanted.results.keep_special_tokens,
        )
        continuation = Continuation(
            *(detokeniser, wanted.stop_token_ids, wanted.stop_strings),
            shows_stop_string=wanted.results.include_stop_string,
            min_new_tokens=wanted.results.min_new_tokens,
        )
        await resumed.catch_up(continuation)
        reason = sequence.order.end_after(sequence.generated)
        if reason is not None:  # the client has all tokens and all text, and lacks the end
            continuation.finish()
            sequence.finish(Finish(SequenceFinish(reason=reason), time.monotonic_ns()))
        elif continuation.stop_string is None:
            await self._queue(sequence, trace)
        num_tokens = len(resumed.token_ids)
        return Relay(
            *(sequence, continuation, self._dispatcher), num_tokens=num_tokens, choice=choice
        )

    async def _queue(self, sequence: Sequence, trace: RequestTrace) -> None:
        self._routers.check_reachable()
        with trace.stage("gateway.queue"):
            self._dispatcher.submit(sequence)
            await sequence.order.deadline.bound(sequence.taken.wait(), "it waited for a router")
