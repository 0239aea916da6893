"""Tokens a second, and the share of what reading the weights allows."""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.harness.statistics import Spread, spread_of
from bench.real_size.reading import memory_rate
from bench.real_size.sizes import Size
from bench.rig.client_load import ClientLoad
from bench.rig.generated import Generated
from bench.rig.prompts import Prompts, text_prompts
from moesaic.v1 import placement_pb2_grpc, router_pb2
from services.runtime.channels import open_channel

NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 64, 48
RECORDING_SECONDS = 600.0
# Of a run: each new token but the first takes a step, and the first steps may be over before the
# recording has begun.
NUM_RECORDED = NUM_NEW_TOKENS - 4


@dataclass(frozen=True)
class Rates:
    """What so many requests at a time were given.

    `num_active` are the experts, of all layers, that a decode step had computed on average;
    `memory_rates` in bytes a second were measured after each of the `samples`.
    """

    size: Size
    num_requests: int
    num_active: float
    samples: Sequence[Generated]
    memory_rates: Sequence[float]

    @property
    def step_bytes(self) -> float:
        """Weights that a decode step has to read."""
        return self.size.trunk_step_bytes + self.num_active * self.size.expert_bytes

    @property
    def limits(self) -> list[float]:
        """Tokens a second if a step took as long as reading its weights, for each sample."""
        return [rate / self.step_bytes * self.num_requests for rate in self.memory_rates]

    @property
    def decode(self) -> list[float]:
        """Tokens a second of each sample while all requests decode."""
        return [decode_rate(sample.token_seconds) for sample in self.samples]

    @property
    def share(self) -> Spread:
        """Of the limit that decoding reaches."""
        pairs = zip(self.decode, self.limits, strict=True)
        return spread_of([rate / limit for rate, limit in pairs])


def decode_rate(token_seconds: Sequence[Sequence[float]]) -> float:
    """Tokens a second from when every request had its first token until one had its last."""
    begin = max(times[0] for times in token_seconds)
    end = min(times[-1] for times in token_seconds)
    count = sum(bisect_right(times, end) - bisect_right(times, begin) for times in token_seconds)
    return count / (end - begin)


def mean_active(responses: Sequence[router_pb2.RecordRoutingResponse], num_rows: int) -> float:
    """Experts of all layers that were active in a mean decode step of so many rows.

    Raises BenchFailed where none was recorded.
    """
    counts: list[int] = []
    for response in responses:
        rows = list(response.rows)
        shape = (response.num_layers, sum(rows), response.num_experts_per_token)
        experts = np.frombuffer(response.experts, dtype="<u2").reshape(shape)
        ends = np.cumsum(rows)
        counts += [
            sum(len(np.unique(layer)) for layer in experts[:, end - num : end])
            for num, end, is_decode in zip(rows, ends, response.is_decode, strict=True)
            if is_decode and num == num_rows
        ]
    if not counts:
        raise BenchFailed(f"no step decoded {num_rows} requests at once")
    return float(np.mean(counts))


async def measured_rates(
    size: Size, gateway: str, router: str, counts: Sequence[int], num_rounds: int, stages: Stages
) -> list[Rates]:
    """Rates for each number of requests at a time, after a first run whose routing is recorded."""
    found: list[Rates] = []
    load = ClientLoad(gateway, num_new_tokens=NUM_NEW_TOKENS)
    try:
        for count in counts:
            prompts = text_prompts(count, NUM_PROMPT_TOKENS)
            with stages.stage(f"{size.name}, requests: {count}", num_rounds + 1):
                num_active = await _recorded(load, router, prompts)
                stages.step()
                samples, rates = [], []
                for _ in range(num_rounds):
                    samples.append(await load.generate(prompts))
                    rates.append(memory_rate())
                    stages.step()
            found.append(Rates(size, count, num_active, samples, rates))
    finally:
        await load.close()
    return found


async def _recorded(load: ClientLoad, router: str, prompts: Prompts) -> float:
    """How many experts decoding the prompts activates."""
    channel: grpc.aio.Channel
    async with open_channel(router) as channel:
        stub = placement_pb2_grpc.PlacementServiceStub(channel)
        await channel.channel_ready()
        request = router_pb2.RecordRoutingRequest(num_steps=NUM_RECORDED)
        call = stub.RecordRouting(request, timeout=RECORDING_SECONDS)
        responses, _ = await asyncio.gather(_all_of(call), load.generate(prompts))
        return mean_active(responses, len(prompts))


async def _all_of(call: grpc.aio.UnaryStreamCall) -> list[router_pb2.RecordRoutingResponse]:
    return [response async for response in call]
