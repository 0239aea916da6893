"""One MoE layer as the router runs it: rows out to the experts, back, and combined; every part
timed as it happens.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from bench.rig.peers import decode_step, random_gate
from bench.rig.processes import cpu_nanos
from services.model.checkpoint import Checkpoint
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.placement import FrameStream, Placement
from services.router.engine.step import Step
from services.router.peers.pace import Pace
from services.router.peers.stream import TimedReply
from services.wire.errors import ServingError

# Of a step: as many as OLMoE-1B-7B has, each with its own choice of experts.
NUM_LAYERS = 16


@dataclass
class LayerSample:
    """One layer of a step, in nanoseconds.

    `parts` are the critical path, one after the other, as the router's receipts have them.
    `service` has what the services said of each frame, and `frame_bytes` each frame's bytes and
    those of its reply's rows. `router_cpu` and `service_cpu` are CPU time of whole processes.
    """

    total: int
    parts: dict[str, int]
    service: list[dict[str, int]]
    frame_bytes: list[tuple[int, int]]
    router_cpu: int
    service_cpu: int


@dataclass
class Recorded:
    """A stream that notes each frame's bytes, and what the service said of it."""

    stream: FrameStream
    sent: list[int] = field(default_factory=list)
    answered: list["asyncio.Future[TimedReply]"] = field(default_factory=list)

    def send(
        self, encode: Callable[[int, int], bytes], num_pairs: int, num_experts: int
    ) -> "asyncio.Future[TimedReply]":
        def encode_and_count(frame_id: int, remaining_nanos: int) -> bytes:
            data = encode(frame_id, remaining_nanos)
            self.sent.append(len(data))
            return data

        answered = self.stream.send(encode_and_count, num_pairs, num_experts)
        self.answered.append(answered)
        return answered

    def answers(self) -> list[TimedReply]:
        """To each frame of a layer that is over."""
        return [answered.result() for answered in self.answered]

    def frame_bytes(self) -> list[tuple[int, int]]:
        """Of each frame, and of the rows in its answer."""
        return [
            (sent, len(answer.reply.rows_bytes))
            for sent, answer in zip(self.sent, self.answers(), strict=True)
        ]

    def clear(self) -> None:
        """Forget what was counted."""
        self.sent.clear()
        self.answered.clear()


class LayerPath:
    """Passes random rows through one layer of a placement again and again, with gates that have no
    favourites.

    A step goes through NUM_LAYERS of them, as it does in a model: what the router does once for a
    step is done for the first of them. Two paths of the same shape pass the same rows with the same
    gates. `output` is the latest layer's.
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
        self._gates = [
            random_gate(num_rows, checkpoint.num_experts, top_k, seed) for seed in range(NUM_LAYERS)
        ]
        self._weights = torch.randn(num_rows, top_k, generator=generator).softmax(-1).to(dtype)
        self._num_passed = 0
        self._step = decode_step(num_rows)
        self._recorded = _record(dispatcher)

    async def __call__(self) -> LayerSample:
        """One layer. Raises the error of the first row that could not be computed."""
        layer = self._num_passed % NUM_LAYERS
        self._num_passed += 1
        if layer == 0:
            self._step = decode_step(len(self._hidden))
        clock = self._step.clock
        router_cpu, service_cpu = time.process_time_ns(), cpu_nanos(*self._pids)
        began = clock.charge("step_wait")  # what lay before is no part of the layer
        before = dict(vars(clock.parts))
        self.output = await self._dispatcher.compute(
            self._step, self._layer, self._hidden, self._gates[layer], self._weights, None
        )
        total = clock.now() - began
        # Read before anything is made of the answers, which no router does.
        router_cpu, service_cpu = (
            time.process_time_ns() - router_cpu,
            cpu_nanos(*self._pids) - service_cpu,
        )
        sample = LayerSample(
            total,
            {
                name: nanos - before[name]
                for name, nanos in vars(checked(self._step).clock.parts).items()
            },
            self._service_timings(),
            [frame for recorded in self._recorded for frame in recorded.frame_bytes()],
            router_cpu,
            service_cpu,
        )
        for recorded in self._recorded:
            recorded.clear()
        return sample

    async def step(self) -> list[LayerSample]:
        """A step's layers, one after the other; raises as one layer does."""
        return [await self() for _ in range(NUM_LAYERS)]

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


@dataclass(frozen=True)
class RecordedService:
    """A service whose streams are recorded."""

    address: str
    streams: Sequence[Recorded]
    pace: Pace


def _record(dispatcher: Dispatcher) -> list[Recorded]:
    placement = dispatcher.placement
    services = [
        RecordedService(
            service.address, [Recorded(stream) for stream in service.streams], service.pace
        )
        for service in placement.services
    ]
    dispatcher.place(Placement(services, placement.replicas, placement.max_frame_bytes))
    return [stream for service in services for stream in service.streams]
