"""The expert service as a process: how it starts, stops and refuses to start."""

import os
import signal
import socket
from pathlib import Path

import pytest
import torch

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.expert.app import running
from services.expert.settings import ExpertSettings
from services.kernels import Activation, ExpertKind
from services.model.fingerprint import numerics_fingerprint
from services.runtime.channels import open_channel
from services.runtime.server import PortInUse
from tests.expert.expert_client import expert_service
from tests.service_process import service_process


async def test_a_process_preloads_its_share_announces_its_port_and_stops_when_told(
    olmoe: Path,
) -> None:
    core = min(os.sched_getaffinity(0))
    flags = (
        "--listen",
        "127.0.0.1:0",
        "--model",
        str(olmoe),
        "--preload",
        "0/2",
        "--cores",
        str(core),
    )
    async with service_process("expert", *flags, "--threads", "1") as (expert, announced):
        word, port = (await announced.readline()).split()
        assert word == b"ready"
        assert expert.pid is not None
        assert os.sched_getaffinity(expert.pid) == {core}
        async with open_channel(f"127.0.0.1:{int(port)}") as channel:
            stub = expert_pb2_grpc.ExpertServiceStub(channel)
            watch = stub.WatchHosting(expert_pb2.WatchHostingRequest())
            assert len((await watch.read()).experts) == 3 * 4
            watch.cancel()
        expert.send_signal(signal.SIGTERM)
        assert await expert.wait() == 0


async def test_a_process_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    async with service_process(
        "expert", "--listen", "127.0.0.1:0", "--model", str(tmp_path / "none")
    ) as (expert, _):
        _, said = await expert.communicate()
    assert expert.returncode == 1
    assert "Traceback" not in said.decode()
    assert "none" in said.decode().splitlines()[-1]


async def test_a_port_in_use_is_an_error(olmoe: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ExpertSettings(listen=f"127.0.0.1:{taken.getsockname()[1]}", model=olmoe)
        with pytest.raises(ExceptionGroup) as refused:
            async with running(settings):
                pass
    assert refused.group_contains(PortInUse)


async def test_preloading_more_than_fits_is_an_error(olmoe: Path) -> None:
    with pytest.raises(ExceptionGroup, match="unhandled") as refused:
        async with expert_service(olmoe, preload="all", expert_memory="64KiB"):
            pass
    assert "expert_memory has room for 7 more of 7" in str(refused.value.exceptions[0])


def test_a_fingerprint_names_what_bits_depend_on() -> None:
    kind = ExpertKind(Activation.GELU)
    fingerprint = numerics_fingerprint(torch.device("cpu"), kind)
    assert fingerprint == numerics_fingerprint(torch.device("cpu"), kind)
    assert ", experts gelu;" in fingerprint
    assert ", experts by torch;" in numerics_fingerprint(torch.device("cpu"), None)
    assert torch.__version__ in fingerprint
    assert torch.backends.cpu.get_cpu_capability() in fingerprint
    assert f"{torch.get_num_threads()} threads" in fingerprint
