"""Speaks to a router as a gateway does, and as an operator."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from moesaic.v1 import common_pb2, placement_pb2_grpc, router_pb2, router_pb2_grpc
from services.runtime.channels import open_channel

GREEDY = common_pb2.SamplingParameters(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)


@dataclass
class Outcome:
    """What became of one sequence."""

    tokens: list[int] = field(default_factory=list)
    routed: list[common_pb2.RoutedExperts] = field(default_factory=list)
    logprobs: list[common_pb2.PositionLogprobs] = field(default_factory=list)
    prompt_logprobs: list[common_pb2.PositionLogprobs] = field(default_factory=list)
    finish: router_pb2.SequenceFinish | None = None


class RouterClient:
    """One Run stream; sequences are named in the order of submission."""

    def __init__(self, stub: Any, placement: Any) -> None:
        self.stub = stub
        self.placement = placement
        self.outcomes: dict[int, Outcome] = {}
        self.credit = router_pb2.Credit()
        self._call = stub.Run()

    async def submit(self, prompts: Sequence[Sequence[int]], **fields: Any) -> list[int]:
        """Submit one sequence for each prompt; returns their names."""
        first = len(self.outcomes)
        asked: dict[str, Any] = {"sampling": GREEDY, "max_new_tokens": 8} | fields
        requests = [
            router_pb2.SequenceRequest(
                sequence=first + offset,
                prompt_token_ids=prompt,
                **asked,
            )
            for offset, prompt in enumerate(prompts)
        ]
        for request in requests:
            self.outcomes[request.sequence] = Outcome()
        await self._call.write(router_pb2.RunRequest(submit=router_pb2.Submit(sequences=requests)))
        return [request.sequence for request in requests]

    async def cancel(self, *names: int) -> None:
        """Give sequences up."""
        await self._call.write(router_pb2.RunRequest(cancel=router_pb2.Cancel(sequences=names)))

    def hang_up(self) -> None:
        """End the stream."""
        self._call.cancel()

    async def read(self) -> None:
        """Take in one response."""
        response = await self._call.read()
        assert isinstance(response, router_pb2.RunResponse), "the router ended the stream"
        if response.HasField("credit"):
            self.credit = response.credit
        for event in response.events:
            outcome = self.outcomes[event.sequence]
            if event.HasField("token"):
                assert outcome.finish is None, "a token after the end"
                outcome.tokens.append(event.token.token_id)
                outcome.routed.append(event.token.routed_experts)
                outcome.logprobs.append(event.token.logprobs)
                outcome.prompt_logprobs += event.token.prompt_logprobs
            else:
                assert outcome.finish is None, "a sequence ended twice"
                outcome.finish = event.finish

    async def finished(self, *names: int) -> list[Outcome]:
        """Read until these sequences have ended."""
        while any(self.outcomes[name].finish is None for name in names):
            await self.read()
        return [self.outcomes[name] for name in names]

    async def generate(self, prompts: Sequence[Sequence[int]], **fields: Any) -> list[Outcome]:
        """Submit prompts and wait for their ends; all of them must end well."""
        outcomes = await self.finished(*await self.submit(prompts, **fields))
        for outcome in outcomes:
            assert outcome.finish is not None
            assert outcome.finish.reason in (
                common_pb2.FINISH_REASON_STOP,
                common_pb2.FINISH_REASON_LENGTH,
            ), outcome.finish.message
        return outcomes


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[RouterClient]:
    """A client of the router at `address`."""
    async with open_channel(address) as channel:
        client = RouterClient(
            router_pb2_grpc.RouterServiceStub(channel),
            placement_pb2_grpc.PlacementServiceStub(channel),
        )
        yield client
        client.hang_up()
