"""Requests that are asked again and again while a cluster is disturbed, and what each of them was
answered.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from bench.harness.failure import BenchFailed
from bench.rig.prompts import text_prompts
from moesaic.client import GatewayLost, generate
from moesaic.v1 import generation_pb2, generation_pb2_grpc
from services.runtime.channels import open_channel
from services.runtime.tls_files import TlsFiles

REQUEST_SECONDS = 60.0
ANSWER_SECONDS = 90.0
# After a request that failed at once; a cluster that is gone is not asked a thousand times a
# second.
PAUSE_SECONDS = 0.1


@dataclass
class Answer:
    """What one request got; moments are those of time.perf_counter.

    `arrivals` are those at which tokens came, and `counts` how many there were by then.
    """

    request: int
    began: float
    arrivals: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    failure: str | None = None
    ended: float = 0.0


def requests_of(
    num_requests: int, num_prompt_tokens: int, num_new_tokens: int
) -> list[generation_pb2.GenerateRequest]:
    """Requests for continuations of real text, past its end: greedy ones and seeded
    ones in turn.
    """
    requests = []
    for number, prompt in enumerate(text_prompts(num_requests, num_prompt_tokens)):
        request = generation_pb2.GenerateRequest(token_ids=generation_pb2.TokenIds(ids=prompt))
        request.sampling.temperature = number % 2
        request.sampling.seed = number
        request.stop.max_new_tokens = num_new_tokens
        request.stop.ignore_eos = True
        requests.append(request)
    return requests


class Streams:
    """A client of the gateway with some streams, each of which asks one request after another.

    One that `resumes` goes on by itself where its gateway is lost, and connects for each request.
    """

    def __init__(
        self,
        address: str,
        requests: Sequence[generation_pb2.GenerateRequest],
        *,
        num_streams: int,
        resumes: bool = False,
        tls: TlsFiles | None = None,
    ) -> None:
        self.answers: list[Answer] = []
        self._requests = requests
        self._num_streams = num_streams
        self._address = address
        self._resumes = resumes
        self._channel: grpc.aio.Channel = open_channel(address, tls=tls)
        self._stub = generation_pb2_grpc.GenerationServiceStub(self._channel)
        self._turns = itertools.cycle(range(len(requests)))
        self._is_ending = False
        self._num_answered = 0
        self._answered = asyncio.Condition()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def each_once(self) -> list[Answer]:
        """Ask every request once, as many at a time as there are streams; the answers
        by request.
        """
        waiting = iter(range(len(self._requests)))
        answers: list[Answer] = []

        async def stream() -> None:
            for number in waiting:
                answers.append(await self._ask(number))

        await asyncio.gather(*(stream() for _ in range(self._num_streams)))
        return sorted(answers, key=lambda answer: answer.request)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Keep all streams busy while the block runs, then let each finish what it is at."""
        self._is_ending = False
        async with asyncio.TaskGroup() as streams:
            for _ in range(self._num_streams):
                streams.create_task(self._stream())
            try:
                yield
            finally:
                self._is_ending = True

    async def until_answered(self, count: int) -> None:
        """Wait until so many requests more have been answered well.

        Raises BenchFailed in the end.
        """
        wanted = self._num_answered + count
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._answered:
                await self._answered.wait_for(lambda: self._num_answered >= wanted)
        except TimeoutError:
            raise BenchFailed(
                f"{count} requests were not answered within {ANSWER_SECONDS:g} s"
            ) from None

    async def _stream(self) -> None:
        while not self._is_ending:
            answer = await self._ask(next(self._turns))
            self.answers.append(answer)
            if answer.failure is not None:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            async with self._answered:
                self._num_answered += 1
                self._answered.notify_all()

    async def _ask(self, number: int) -> Answer:
        answer = Answer(number, time.perf_counter())
        try:
            async for response in self._responses(self._requests[number]):
                if response.delta.token_ids:
                    answer.token_ids += response.delta.token_ids
                    answer.arrivals.append(time.perf_counter())
                    answer.counts.append(len(answer.token_ids))
                answer.text += response.delta.text
        except grpc.aio.AioRpcError as error:
            answer.failure = f"{error.code().name}: {error.details()}"
        except GatewayLost as error:
            answer.failure = f"CANCELLED: {error}"
        answer.ended = time.perf_counter()
        return answer

    def _responses(
        self, request: generation_pb2.GenerateRequest
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        if self._resumes:
            return generate(request, [self._address], timeout_seconds=REQUEST_SECONDS)
        call: grpc.aio.UnaryStreamCall = self._stub.Generate(request, timeout=REQUEST_SECONDS)
        responses: AsyncIterator[generation_pb2.GenerateResponse] = aiter(call)
        return responses
