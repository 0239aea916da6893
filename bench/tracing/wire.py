"""Whether traces tell communication for what it is: a relay delays one service, and its frames'
wire time is read.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.hosting.wire import Wire
from bench.rig.client_load import ClientLoad
from bench.rig.cluster import until_serving
from bench.rig.processes import services_running
from bench.rig.prompts import Prompts
from bench.tracing.sink import SpanSink
from moesaic.v1 import common_pb2
from services.cli.members import Member, free_addresses

NUM_LANES = 3
IDLE, BUSY = "one lane, idle", f"{NUM_LANES} lanes, busy"
NUM_BUSY = 4 * NUM_LANES
NUM_NEW_TOKENS = 24
DELAY_SECONDS = 0.02


@dataclass
class WireTimes:
    """Medians of the traced wire time of one service's frames in milliseconds, a pair for each
    round.
    """

    undelayed: list[float] = field(default_factory=list)
    delayed: list[float] = field(default_factory=list)

    @property
    def differences(self) -> list[float]:
        """What the delay added, by round."""
        return [after - before for before, after in zip(self.undelayed, self.delayed, strict=True)]


class WiredCluster:
    """A cluster of two expert services with a relay in front of one; everything is traced to its
    layers.
    """

    def __init__(self, wire: Wire, load: ClientLoad, sink: SpanSink) -> None:
        self._wire, self._load, self._sink = wire, load, sink

    async def measure(self, prompts: Prompts, times: WireTimes) -> None:
        """A round: the same requests, all at once, without the delay and with it."""
        times.undelayed.append(await self._wire_ms(prompts))
        await self._wire.delay(DELAY_SECONDS / 2)  # each way
        times.delayed.append(await self._wire_ms(prompts))
        await self._wire.restore()

    async def _wire_ms(self, prompts: Prompts) -> float:
        self._sink.clear()
        await self._load.generate(prompts)
        await self._sink.until("router.sequence", len(prompts))  # sent after the sequence's steps
        frames = [
            {one.key: one.value for one in span.attributes}
            for span in self._sink.named("router.expert")
        ]
        return median(
            one["moesaic.wire_nanos"].int_value / 1e6
            for one in frames
            if one["server.address"].string_value == self._wire.address
        )


@asynccontextmanager
async def wired_cluster(model: Path, sink: SpanSink) -> AsyncIterator[WiredCluster]:
    """Run it until the block ends."""
    *experts, router, gateway = free_addresses(4)
    wire = await Wire.start(experts[-1])
    try:
        shared = (f"--model={model}", "--drain-seconds=1")
        asked = f"--experts={experts[0]},{wire.address}"
        members = [
            *(
                Member.of(f"expert-{n}", "expert", address, *shared)
                for n, address in enumerate(experts)
            ),
            Member.of("router", "router", router, *shared, asked, f"--lanes={NUM_LANES}"),
            Member.of(
                *("gateway", "gateway", gateway, *shared),
                *(f"--routers={router}", "--http-listen=off"),
            ),
        ]
        async with services_running(members, sink.variables):
            await until_serving(gateway)
            load = ClientLoad(
                gateway, num_new_tokens=NUM_NEW_TOKENS, trace_detail=common_pb2.TRACE_DETAIL_LAYER
            )
            try:
                yield WiredCluster(wire, load, sink)
            finally:
                await load.close()
    finally:
        await wire.close()
