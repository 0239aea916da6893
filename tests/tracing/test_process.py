"""The tracing service as a process: healthy, told to stop, and in the way of another."""

import asyncio
import re
import signal
import socket
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.channels import open_channel
from services.runtime.server import PortInUse
from services.runtime.settings import load
from services.tracing.app import tracing
from services.tracing.settings import TracingSettings
from tests.service_process import service_process

START_SECONDS = 30


async def test_the_process_is_healthy_until_it_is_told_to_stop() -> None:
    async with service_process("tracing", "--listen=127.0.0.1:0", "--http=127.0.0.1:0") as (
        process,
        announced,
    ):
        async with asyncio.timeout(START_SECONDS):
            ready, port = (await announced.readline()).decode().split()
        assert ready == "ready"
        async with open_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            response = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
    assert process.returncode == 0
    assert re.search(rb"traces are shown on http://127.0.0.1:\d+", log)


@pytest.mark.parametrize("taken", ["listen", "http"])
async def test_a_port_in_use_is_told(taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        addresses: dict[str, Any] = {"listen": "127.0.0.1:0", "http": "127.0.0.1:0"} | {
            taken: f"127.0.0.1:{server.getsockname()[1]}"
        }
        with pytest.raises(PortInUse, match=addresses[taken]):
            async with tracing(TracingSettings(**addresses)):
                pass


@pytest.mark.parametrize(
    "flags", [["--http", "nowhere"], ["--max-traces", "0"], ["--max-bytes", "1KiB"]]
)
def test_settings_that_mean_nothing_are_refused(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        load(TracingSettings, flags, "moesaic tracing")
    assert exit_info.value.code == 2
    assert flags[0] in capsys.readouterr().err
