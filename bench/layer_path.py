"""One MoE layer as the router runs it: rows out to the experts, back, and combined; every part timed as it happens."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.peers import decode_step, random_gate
from bench.processes import cpu_nanos
from services.model.checkpoint import Checkpoint
from services.router.dispatch import Dispatcher, Placement
from services.router.expert_stream import Answer, ExpertStream
from services.router.step import Step
from services.wire.errors import ServingError

NUM_GATES = 16  # different choices of experts, used in turn


@dataclass
class LayerSample:
    """One pass through a layer, in nanoseconds.

    `parts` are the critical path, one after the other, as the router's receipts have them. `service` has what the
    services said of each frame, and `frame_bytes` each frame's bytes and those of its reply's rows. `router_cpu` and
    `service_cpu` are CPU time of whole processes.
    """

    total: int
    parts: dict[str, int]
    service: list[dict[str, int]]
    frame_bytes: list[tuple[int, int]]
    router_cpu: int = 0
    service_cpu: int = 0


@dataclass
class Recorded:
    """An ExpertStream that notes each frame's bytes, and what the service said of it."""

    stream: ExpertStream
    sent: list[int] = field(default_factory=list)
    answered: list["asyncio.Future[Answer]"] = field(default_factory=list)

    def send(self, encode: Callable[[int, int], bytes], num_pairs: int) -> Any:
        def noted(frame_id: int, remaining_nanos: int) -> bytes:
            data = encode(frame_id, remaining_nanos)
            self.sent.append(len(data))
            return data

        answered = self.stream.send(noted, num_pairs)
        self.answered.append(answered)
        return answered

    def answers(self) -> list[Answer]:
        """To each frame of a pass that is over."""
        return [answered.result() for answered in self.answered]

    def frame_bytes(self) -> list[tuple[int, int]]:
        """Of each frame, and of the rows in its answer."""
        return [(sent, len(answer.reply.rows_bytes)) for sent, answer in zip(self.sent, self.answers(), strict=True)]

    def clear(self) -> None:
        """Forget what was noted."""
        self.sent.clear()
        self.answered.clear()


class LayerPath:
    """Passes random rows through one layer of a placement, with a gate that has no favourites.

    Two paths of the same shape pass the same rows with the same gates. `output` is the latest pass's.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dispatcher: Dispatcher,
        *,
        num_rows: int,
        top_k: int,
        service_pids: Sequence[int],
        dtype: torch.dtype | None = None,
    ) -> None:
        dtype = dtype or checkpoint.dtype
        generator = torch.Generator().manual_seed(0)
        self.output = torch.empty(0)
        self._dispatcher = dispatcher
        self._top_k = top_k
        self._layer = checkpoint.moe_layers[0]
        self._pids = service_pids
        self._hidden = torch.randn(num_rows, checkpoint.hidden_size, generator=generator).to(dtype)
        self._gates = [random_gate(num_rows, checkpoint.num_experts, top_k, seed) for seed in range(NUM_GATES)]
        self._weights = torch.randn(num_rows, top_k, generator=generator).softmax(-1).to(dtype)
        self._num_passes = 0
        self._recorded = _record(dispatcher)

    async def __call__(self) -> LayerSample:
        """One pass. Raises the error of the first row that could not be computed."""
        step = decode_step(len(self._hidden))
        index = self._gates[self._num_passes % NUM_GATES]
        self._num_passes += 1
        router_cpu, service_cpu = time.process_time_ns(), cpu_nanos(*self._pids)
        began = step.clock.now()
        # What making the step took is no part of the layer.
        step.clock.charge("step_wait")
        self.output = await self._dispatcher.compute(step, self._layer, self._hidden, index, self._weights, None)
        total = step.clock.now() - began
        sample = LayerSample(
            total,
            {name: nanos for name, nanos in vars(checked(step).clock.parts).items() if name != "step_wait"},
            self._service_timings(),
            [frame for recorded in self._recorded for frame in recorded.frame_bytes()],
            time.process_time_ns() - router_cpu,
            cpu_nanos(*self._pids) - service_cpu,
        )
        for recorded in self._recorded:
            recorded.clear()
        return sample

    def _service_timings(self) -> list[dict[str, int]]:
        answers = [answer for recorded in self._recorded for answer in recorded.answers()]
        return [
            {
                "wire": answer.times.wire,
                "decode": answer.reply.timings.decode_nanos,
                "queue": answer.reply.timings.queue_nanos,
                "compute": answer.reply.timings.compute_nanos,
                "encode": answer.reply.timings.encode_nanos,
            }
            for answer in answers
        ]


def checked(step: Step) -> Step:
    """The step, if all of its rows were computed; else the first row's error is raised."""
    for work in step.batch:
        if work.sequence.ending is not None:
            raise work.sequence.ending.error or ServingError("a row was given up")
    return step


def _record(dispatcher: Dispatcher) -> list[Recorded]:
    placement = dispatcher.placement
    recorded = [[Recorded(stream) for stream in streams] for streams in placement.streams]
    dispatcher.placement = Placement(
        placement.owners,
        recorded,  # type: ignore[arg-type]  # they are sent to, and nothing else
        placement.addresses,
        placement.max_frame_bytes,
    )
    return [stream for streams in recorded for stream in streams]
