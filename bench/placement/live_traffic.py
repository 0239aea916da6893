"""Recorded routing driven through a router's dispatcher: real frames for steps that
are replayed.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle

import numpy as np
import torch

from bench.layer.path import checked
from bench.placement.live_cluster import LiveCluster
from bench.placement.text import WINDOW
from bench.placement.traffic import DECODE, DECODE_BATCH, MIXED, PREFILL, decoded
from bench.rig.peers import decode_step, prefill_step
from services.router.dispatch.frame_pairs import DROPPED
from services.router.load.recording import DROPPED_ID, ExpertIds, Recording, joined

# Of mixed steps: as if every sequence read a window and then generated a window's eighth.
NUM_GENERATED = WINDOW // 8
DECODES_PER_PREFILL = NUM_GENERATED // DECODE_BATCH


@dataclass(frozen=True, eq=False)
class Play:
    """Steps in their order; each of so many lanes takes the next one when it is done
    with its own.
    """

    name: str
    recording: Recording
    num_lanes: int = 1


@dataclass
class Played:
    """What steps took. `milliseconds` are by kind of step (PREFILL, DECODE), and whether experts
    were moved then.

    `device_seconds` is what devices alone would have taken for the frames of all steps, one step
    after the other.
    """

    seconds: float = 0.0
    num_tokens: int = 0
    device_seconds: float = 0.0
    milliseconds: dict[tuple[str, bool], list[float]] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Of all lanes together."""
        return self.num_tokens / self.seconds

    def of(self, kind: str, *, is_moving: bool) -> list[float]:
        """Milliseconds of each step of a kind."""
        return self.milliseconds.get((kind, is_moving), [])


def plays_of(windows: Recording, num_windows: int) -> list[Play]:
    """Steps of each kind made of a topic's windows, and mixed: in one lane, the mixed ones in two
    as well.
    """
    prefill = windows.between(0, num_windows)
    decode = decoded(windows)
    decode = decode.between(0, min(decode.num_steps, num_windows * DECODES_PER_PREFILL))
    mixed = alternating(prefill, decode, DECODES_PER_PREFILL)
    return [
        Play(PREFILL, prefill),
        Play(DECODE, decode),
        Play(MIXED, mixed),
        Play(f"{MIXED}, 2 lanes", mixed, num_lanes=2),
    ]


def alternating(prefill: Recording, decode: Recording, num_decodes: int) -> Recording:
    """A step of the one, then so many of the other, until either is at its end."""
    parts = []
    for number in range(min(prefill.num_steps, decode.num_steps // num_decodes)):
        parts.append(prefill.between(number, number + 1))
        parts.append(decode.between(number * num_decodes, (number + 1) * num_decodes))
    return joined(parts)


def evened(recording: Recording) -> Recording:
    """The same steps with experts dealt out in turn, so that all of a layer get the same."""
    num_layers, num_tokens, top_k = recording.experts.shape
    dealt = (
        (np.arange(num_tokens * top_k) % recording.num_experts)
        .astype(np.uint16)
        .reshape(num_tokens, top_k)
    )
    return replace(recording, experts=np.broadcast_to(dealt, (num_layers, num_tokens, top_k)))


class Driver:
    """Passes steps through all layers as lanes of a router do, with nothing in the place of its
    trunk.

    Rows are zeros, and so are results.
    """

    def __init__(self, cluster: LiveCluster) -> None:
        self._cluster = cluster

    async def play(self, play: Play) -> Played:
        """All steps, each once. Raises the error of the first row that could not be computed."""
        return await self._drive(play, iter(range(play.recording.num_steps)))

    async def play_until(self, play: Play, is_over: Callable[[], bool]) -> Played:
        """Steps over and over until it is over, as looked at before each."""
        steps = cycle(range(play.recording.num_steps))
        return await self._drive(play, iter(lambda: None if is_over() else next(steps), None))

    async def _drive(self, play: Play, steps: Iterator[int]) -> Played:
        played = Played()
        began = time.perf_counter_ns()
        async with asyncio.TaskGroup() as lanes:
            for lane in range(play.num_lanes):
                lanes.create_task(self._run_lane(lane, play.recording, steps, played))
        played.seconds = (time.perf_counter_ns() - began) / 1e9
        return played

    async def _run_lane(
        self, lane: int, recording: Recording, steps: Iterator[int], played: Played
    ) -> None:
        for number in steps:
            experts, is_decode = recording.step(number), bool(recording.is_decode[number])
            is_moving, began = self._cluster.is_moving(), time.perf_counter_ns()
            device_nanos = await self._run_step(lane, experts, is_decode=is_decode)
            nanos = time.perf_counter_ns() - began
            kind = DECODE if is_decode else PREFILL, is_moving or self._cluster.is_moving()
            played.milliseconds.setdefault(kind, []).append(nanos / 1e6)
            played.num_tokens += experts.shape[1]
            played.device_seconds += device_nanos / 1e9

    async def _run_step(self, lane: int, experts: ExpertIds, *, is_decode: bool) -> int:
        """Nanoseconds that devices alone would have taken."""
        cluster, checkpoint = self._cluster, self._cluster.checkpoint
        _, num_rows, top_k = experts.shape
        step, device_nanos = (decode_step if is_decode else prefill_step)(num_rows, lane), 0
        hidden = torch.zeros(num_rows, checkpoint.hidden_size, dtype=checkpoint.dtype)
        weights = torch.full((num_rows, top_k), 1 / top_k, dtype=checkpoint.dtype)
        for layer, index in zip(checkpoint.moe_layers, _indices(experts), strict=True):
            await cluster.dispatcher.compute(step, layer, hidden, index, weights, None)
            device_nanos += cluster.sent.take(lane)
        checked(step)
        return device_nanos


def _indices(experts: ExpertIds) -> Sequence[torch.Tensor]:
    """Of each layer the experts of each row, [rows, k], as a gate gives them."""
    known = experts.astype(np.int64, order="C")
    known[experts == DROPPED_ID] = DROPPED
    return list(torch.from_numpy(known))
