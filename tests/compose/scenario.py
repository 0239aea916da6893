"""What befalls the composed cluster under load, and what its clients and its scaler
notice of it.
"""

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc

from bench.harness.failure import BenchFailed
from bench.hosting.findings import Finding, Window, findings_of
from bench.hosting.streams import Streams, requests_of
from bench.hosting.truth import Faults
from moesaic.v1 import generation_pb2_grpc
from services.runtime.channels import open_channel
from tests.compose import cluster as compose
from tests.compose.cluster import METRICS_PORT, ComposeCluster, Container

NUM_STREAMS, NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 3, 6, 16, 48
FIRST_TOKEN_SECONDS = 180.0
EVENT_SECONDS = 240.0
TRACE_SECONDS = 30.0
PAUSE_SECONDS = 5.0
POLL_SECONDS = 0.1
READ_SECONDS = 5.0
# A proxy meant for the web knows nothing of this machine's containers.
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
FRAMES = re.compile(r"^moesaic_expert_frames_total\S*\{.*\} (\S+)", re.MULTILINE)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """Seconds: from `up` to the first token, and from the start of each added container to its
    first frame.
    """

    first_token: float
    first_frames: Sequence[float]
    findings: Sequence[Finding]


async def run(cluster: ComposeCluster, say: Say) -> Measured:
    """Bring the cluster up, disturb it under load, and compare every answer with those
    from before.
    """
    say("up")
    first_token = await _up_to_first_token(cluster)
    await cluster.until_whole(2)
    requests = requests_of(NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS)
    streams = Streams(f"127.0.0.1:{cluster.port}", requests, num_streams=NUM_STREAMS)
    try:
        say("undisturbed run")
        reference = await streams.each_once()
        await _until_traced(cluster)
        disturbing = Disturbing(cluster, streams, say)
        async with streams.asking():
            await disturbing.all()
        for service in ("gateway", "router"):
            if await cluster.num_restarts(service):
                raise BenchFailed(f"a {service} that nobody disturbed ended, and was started again")
    finally:
        await streams.close()
    return Measured(
        first_token,
        disturbing.first_frames,
        findings_of(disturbing.windows, streams.answers, reference),
    )


class Disturbing:
    """Lets one event after the other befall the cluster; each is over when the placement is whole
    again.
    """

    def __init__(self, cluster: ComposeCluster, streams: Streams, say: Say) -> None:
        self.windows: list[Window] = []
        self.first_frames: Sequence[float] = ()
        self._cluster = cluster
        self._streams = streams
        self._say = say

    async def all(self) -> None:
        """Every event once, from two services to two."""
        await self._event("undisturbed", self._nothing, 2)
        await self._event("scale 2 to 4", self._scale_up, 4)
        await self._event("scale 4 to 2", lambda: self._cluster.scale(2), 2)
        await self._event("kill -9 of an expert's process", self._kill_process, 2)
        await self._event("docker kill of an expert", self._kill, 1)
        await self._event("compose brings it back", lambda: self._cluster.scale(2), 2)
        await self._event(f"docker pause of an expert, {PAUSE_SECONDS:g} s", self._pause, 2)

    async def _event(
        self, label: str, act: Callable[[], Awaitable[None]], num_experts: int
    ) -> None:
        self._say(label)
        num_retries, began = await self._cluster.num_retries(), time.perf_counter()
        try:
            async with asyncio.timeout(EVENT_SECONDS):
                await act()
                await self._cluster.until_whole(num_experts)
                await self._streams.until_answered(NUM_STREAMS)
        except TimeoutError:
            raise BenchFailed(f"{label}: not over after {EVENT_SECONDS:g} s") from None
        num_retries = await self._cluster.num_retries() - num_retries
        self.windows.append(Window(label, began, time.perf_counter(), num_retries, Faults((), ())))

    async def _nothing(self) -> None:
        await self._streams.until_answered(2 * NUM_STREAMS)

    async def _scale_up(self) -> None:
        before = {container.name for container in await self._cluster.containers("expert")}
        await self._cluster.scale(4)
        new = [one for one in await self._cluster.containers("expert") if one.name not in before]
        self.first_frames = await asyncio.gather(*map(_seconds_to_first_frame, new))

    async def _kill_process(self) -> None:
        victim = await self._expert()
        await compose.kill_process(victim)
        await compose.until_started_again(victim)

    async def _kill(self) -> None:
        await compose.kill(await self._expert())

    async def _pause(self) -> None:
        await compose.pause(await self._expert(), PAUSE_SECONDS)

    async def _expert(self) -> Container:
        return (await self._cluster.containers("expert"))[0]


async def _up_to_first_token(cluster: ComposeCluster) -> float:
    began = time.perf_counter()
    await cluster.up()
    (request,) = requests_of(1, NUM_PROMPT_TOKENS, 1)
    failure = ""
    while time.perf_counter() - began < FIRST_TOKEN_SECONDS:
        async with open_channel(f"127.0.0.1:{cluster.port}") as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            try:
                async for response in stub.Generate(request, timeout=READ_SECONDS):
                    if response.delta.token_ids:
                        return time.perf_counter() - began
            except grpc.aio.AioRpcError as error:
                failure = f"{error.code().name}: {error.details()}"
        await asyncio.sleep(POLL_SECONDS)
    raise BenchFailed(f"no token within {FIRST_TOKEN_SECONDS:g} s: {failure}")


async def _until_traced(cluster: ComposeCluster) -> None:
    """Return when the tracing service has one trace that goes through a gateway, a router and an
    expert service.
    """
    url = f"http://127.0.0.1:{cluster.tracing_port}/api/traces?service=gateway&limit=20"
    wanted = {"gateway", "router", "expert"}
    deadline = time.monotonic() + TRACE_SECONDS
    seen: list[set[str]] = []
    while time.monotonic() < deadline:
        text = await asyncio.to_thread(_read, url)
        seen = [
            {process["serviceName"].partition("-")[0] for process in trace["processes"].values()}
            for trace in json.loads(text or '{"data": []}')["data"]
        ]
        if any(services >= wanted for services in seen):
            return
        await asyncio.sleep(POLL_SECONDS)
    raise BenchFailed(
        f"no trace goes through {sorted(wanted)}; there are {len(seen)}, of {seen[:3]}"
    )


async def _seconds_to_first_frame(container: Container) -> float:
    """From the start of the container until it says that it has computed a frame, by the clock of
    the machine.
    """
    while True:
        text = await asyncio.to_thread(_read, f"http://{container.address}:{METRICS_PORT}/metrics")
        if sum(map(float, FRAMES.findall(text))) > 0:
            return time.time() - container.started
        await asyncio.sleep(POLL_SECONDS)


def _read(url: str) -> str:
    """What is there; nothing where nobody answers yet."""
    try:
        with WITHOUT_PROXY.open(url, timeout=READ_SECONDS) as response:
            text: str = response.read().decode()
            return text
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return ""
