"""One MoE layer as the router runs it: rows out to the experts, back, and combined; every part
timed as it happens.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bench.rig.peers import decode_step, random_gate
from bench.rig.processes import cpu_nanos
from services.model.checkpoint import Checkpoint
from services.router.dispatch.dispatcher import Dispatcher
from services.router.engine.step import Step
from services.router.peers.entered_frame import EnteredFrame, ExchangeRecord
from services.router.peers.stream import ExpertStream, TimedReply
from services.router.times.receipt import ReplyTimes
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


class Recorder:
    """Notes each frame's bytes, and what the service said of it, whichever way a stream sends it.

    Of frames in an exchange the bytes are not known.
    """

    def __init__(self, stream: ExpertStream) -> None:
        self._noted: list[tuple[ReplyTimes, Sequence[int]]] = []  # decode, queue, compute, encode
        self.frame_bytes: list[tuple[int, int]] = []
        self._send = stream.send
        self._answered = stream.answered
        self._go_on = stream.go_on
        stream.go_on = self.go_on  # type: ignore[method-assign]
        stream.send = self.send  # type: ignore[method-assign]
        stream.answered = self.answered  # type: ignore[method-assign]

    def send(
        self, encode: Callable[[int, int], bytes], num_pairs: int, num_experts: int
    ) -> "asyncio.Future[TimedReply]":
        """As the stream sends a frame by itself."""
        num_bytes = 0

        def encode_and_count(frame_id: int, remaining_nanos: int) -> bytes:
            nonlocal num_bytes
            data = encode(frame_id, remaining_nanos)
            num_bytes = len(data)
            return data

        def note_bytes(answered: "asyncio.Future[TimedReply]") -> None:
            if not answered.cancelled() and answered.exception() is None:
                self.frame_bytes.append((num_bytes, len(answered.result().reply.rows_bytes)))

        answered = self._send(encode_and_count, num_pairs, num_experts)
        answered.add_done_callback(self._note)
        answered.add_done_callback(note_bytes)
        return answered

    def answered(self, frame: EnteredFrame, record: ExchangeRecord) -> ReplyTimes:
        """As the stream is told of a frame in an exchange."""
        times = self._answered(frame, record)
        self._noted.append((times, record[2:6]))
        return times

    def go_on(self, frame: EnteredFrame, record: ExchangeRecord) -> "asyncio.Future[TimedReply]":
        """As the stream awaits a frame that an exchange did not wait for."""
        answered = self._go_on(frame, record)
        answered.add_done_callback(self._note)
        return answered

    def _note(self, answered: "asyncio.Future[TimedReply]") -> None:
        if not answered.cancelled() and answered.exception() is None:
            answer = answered.result()
            self._noted.append((answer.times, answer.reply.timings))

    def timings(self) -> list[dict[str, int]]:
        """Of each frame, by part, in nanoseconds."""
        return [_timings(times, *durations) for times, durations in self._noted]

    def clear(self) -> None:
        """Forget what was noted."""
        self._noted.clear()
        self.frame_bytes.clear()


def _timings(
    times: ReplyTimes, decode: int, queue: int, compute: int, encode: int
) -> dict[str, int]:
    return {
        "wire": times.wire,
        "decode": decode,
        "queue": queue,
        "compute": compute,
        "encode": encode,
    }


class LayerPath:
    """Passes random rows through one layer of a placement again and again, with gates that have no
    favourites.

    A step goes through NUM_LAYERS of them, as it does in a model: what the router does once for a
    step is done for the first of them. Two paths of the same shape pass the same rows with the same
    gates. `output` is the latest layer's. Without `exchanges` every frame is sent by itself.
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
        exchanges: bool = True,
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
        self._exchanges = exchanges
        self._recorders = [
            Recorder(stream)
            for service in dispatcher.placement.services
            for stream in service.streams
            if isinstance(stream, ExpertStream)
        ]

    async def __call__(self) -> LayerSample:
        """One layer. Raises the error of the first row that could not be computed."""
        layer = self._num_passed % NUM_LAYERS
        self._num_passed += 1
        if layer == 0:
            self._step = decode_step(len(self._hidden))
            self._step.is_alone = self._exchanges
        for recorder in self._recorders:
            recorder.clear()  # frames of another path on the same streams
        clock = self._step.clock
        service_cpu = cpu_nanos(*self._pids)
        router_cpu = time.process_time_ns()  # last: the line above is no router's work
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
        await asyncio.sleep(0)  # in which the frames' ends are noted
        return LayerSample(
            total,
            {
                name: nanos - before[name]
                for name, nanos in vars(checked(self._step).clock.parts).items()
            },
            [timings for recorder in self._recorders for timings in recorder.timings()],
            [frame for recorder in self._recorders for frame in recorder.frame_bytes],
            router_cpu,
            service_cpu,
        )

    async def step(self) -> list[LayerSample]:
        """A step's layers, one after the other; raises as one layer does."""
        return [await self() for _ in range(NUM_LAYERS)]


def checked(step: Step) -> Step:
    """The step, if all of its rows were computed; else the first row's error is raised."""
    for work in step.batch:
        if work.sequence.ending is not None:
            raise work.sequence.ending.error or ServingError("a row was given up")
    return step
