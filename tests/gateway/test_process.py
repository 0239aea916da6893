"""The gateway as a process: what it imports, how it starts, how it stops, and what it leaves
behind.
"""

import asyncio
import gc
import random
import signal
import socket
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.app import gateway
from services.gateway.settings import GatewaySettings
from services.runtime.server import PortInUse
from tests.gateway.gateway_client import Client, running_gateway
from tests.gateway.router_double import RouterDouble, finished, serving_router, token
from tests.service_process import ROOT, free_port, service_process


def test_the_gateway_imports_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, services.gateway.app, services.gateway.__main__;"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def process(
    *flags: str,
) -> AbstractAsyncContextManager[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """A gateway process and the stream on which it announces that it is ready."""
    return service_process("gateway", "--listen", "127.0.0.1:0", "--http-listen=off", *flags)


async def test_told_to_stop_it_finishes_what_it_accepted_and_refuses_what_is_new() -> None:
    router = RouterDouble()
    async with (
        serving_router(router) as address,
        process("--routers", address) as (running, announced),
    ):
        port = int((await announced.readline()).split()[1])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = Client(channel, "")
            call = client.generate()
            number = (await router.next_sequence()).sequence
            watch = client.watch_health()
            assert await anext(watch) == "SERVING"
            running.send_signal(signal.SIGTERM)
            assert await anext(watch) == "NOT_SERVING"
            await watch.aclose()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as another:
                status, _ = await Client(another, "").refused()
            assert status == grpc.StatusCode.UNAVAILABLE
            router.say(token(number, 5), finished(number))
            assert [event.WhichOneof("event") async for event in call] == ["delta", "completion"]
        assert await running.wait() == 0


async def test_told_to_stop_before_it_found_a_router_it_stops() -> None:
    async with process("--routers", f"127.0.0.1:{free_port()}") as (running, announced):
        assert running.stderr is not None
        while b"cannot be used" not in await running.stderr.readline():
            pass
        running.send_signal(signal.SIGTERM)
        assert await running.wait() == 0
        assert await announced.read() == b""


async def test_with_a_router_of_another_checkpoint_it_ends_with_one_line() -> None:
    double = RouterDouble(vocab_size=7)
    async with serving_router(double) as address, process("--routers", address) as (running, _):
        _, complaints = await running.communicate()
        assert running.returncode == 1
    assert b"\nmoesaic gateway: the router's model 'tessera' has a vocabulary of 7" in complaints
    assert b"Traceback" not in complaints


async def test_a_port_in_use_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = GatewaySettings(listen=address, http_listen="")
        with pytest.raises(ExceptionGroup) as failure:
            async with gateway(settings):
                pass
    assert failure.group_contains(PortInUse, match="cannot listen on 127.0.0.1")


async def test_requests_cancelled_at_random_moments_leave_nothing_behind() -> None:
    chance = random.Random(7)
    router = RouterDouble(answer=[5] * 8, sequences=3)
    limits: dict[str, Any] = {"max_waiting_requests": 30, "max_waiting_tokens": 1_000}
    async with running_gateway(router, **limits) as client:
        await client.complete()
        tasks_before = len(asyncio.all_tasks())
        for _ in range(20):
            async with asyncio.TaskGroup() as calls:
                for _ in range(25):
                    calls.create_task(leave_somewhere(client, chance.choice(range(5))))
        await client.complete()
        # Every place in the queue is free again.
        router.sequences = 0
        router.grant()
        waiting = [client.generate(token_ids=pb.TokenIds(ids=[5] * 30)) for _ in range(30)]
        await client.stub.GetModel(pb.GetModelRequest())
        assert not any(call.done() for call in waiting)
        for call in waiting:
            call.cancel()
        del waiting, call
        while len(asyncio.all_tasks()) > tasks_before:  # noqa: ASYNC110 -- the last calls are being closed
            await asyncio.sleep(0)


async def leave_somewhere(client: Client, moment: int) -> None:
    """Begin a call and leave it after some turns of the event loop, or some events."""
    call = client.generate(stop=common_pb2.StopConditions(max_new_tokens=8, stop_strings=["never"]))
    for _ in range(moment):
        await asyncio.sleep(0)
    if moment > 2:
        await call.read()
    call.cancel()


async def test_a_thousand_broken_streams_leave_nothing_to_the_garbage_collector() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:

        async def leave_while_reading() -> None:
            call = client.generate()
            number = (await router.next_sequence()).sequence
            router.say(token(number, 5))
            await call.read()
            call.cancel()
            await router.cancels.get()

        async def be_refused() -> None:
            await client.refused(token_ids=pb.TokenIds())

        for broken in (leave_while_reading, be_refused):
            for _ in range(3):
                await broken()
            gc.collect()
            gc.disable()
            try:
                for _ in range(500):
                    await broken()
                assert gc.collect() < 50  # a cycle for each would be thousands of objects
            finally:
                gc.enable()
