"""A cluster with mutual TLS: it serves as another does, strangers get nothing of it, and its
certificates are replaced while it serves.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bench.rig.certificates import Certificates
from moesaic.v1 import common_pb2
from services.runtime.access import may_call
from services.runtime.channels import open_channel
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles
from services.tracing.app import tracing
from services.tracing.settings import TracingSettings
from tests.cluster import local
from tests.gateway.gateway_client import Client

OPTIONS = {"sampling": common_pb2.SamplingParameters(temperature=0.0)}
STOP = common_pb2.StopConditions(max_new_tokens=8)
PROMPT = "Once upon a time, there was a little"
RENEWED_SECONDS = 60.0
UNAVAILABLE, DENIED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED


@asynccontextmanager
async def cluster_with(certificates: Certificates) -> AsyncIterator[dict[Role, str]]:
    """Addresses of a service of each role."""
    settings = TracingSettings(
        listen=local.LISTEN, http=local.LISTEN, **certificates.settings_of(Role.TRACING)
    )
    async with (
        tracing(settings) as traces,
        local.cluster(EMBEDDED_MODEL, certificates=certificates, dtype="float32") as cluster,
    ):
        yield {
            Role.GATEWAY: cluster.gateway,
            Role.ROUTER: cluster.router,
            Role.EXPERT: cluster.experts[0],
            Role.TRACING: f"127.0.0.1:{traces.port}",
        }


async def methods_of(channel: grpc.aio.Channel) -> list[tuple[str, bool]]:
    """The path of every method that a server says it has, and whether it takes a stream."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = stub.ServerReflectionInfo(iter([request]))
    (answer,) = [answer async for answer in call]
    pool = descriptor_pool.Default()
    return [
        (f"/{service.name}/{method.name}", method.client_streaming)
        for service in answer.list_services_response.service
        for method in pool.FindServiceByName(service.name).methods
    ]


async def status_of(channel: grpc.aio.Channel, method: str, takes_stream: bool) -> grpc.StatusCode:
    """What a call ends with that is to get no answer. A stream is refused before its first message,
    which gRPC's client would take for a fault of the connection.
    """
    call = channel.stream_stream(method)(None if takes_stream else iter([b""]), timeout=20)
    try:
        assert await call.read() is grpc.aio.EOF, f"{method} answered"
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code()


async def test_strangers_get_no_answer_of_any_method_of_any_service(
    certificates: Certificates, tmp_path: Path
) -> None:
    strangers = Certificates(tmp_path)
    authority = certificates.of(Role.CLIENT).authority
    stranger = strangers.of(Role.OPERATOR)
    pretender = TlsFiles(stranger.certificate, stranger.key, authority)
    num_methods = num_denied = 0
    async with cluster_with(certificates) as addresses:
        for server, address in addresses.items():
            name = server.server_name
            async with open_channel(
                address, tls=certificates.of(Role.OPERATOR), server_name=name
            ) as channel:
                methods = await methods_of(channel)
            num_methods += len(methods)
            for tls in (None, stranger, pretender):
                async with open_channel(address, tls=tls, server_name=name) as channel:
                    ended = {await status_of(channel, *method) for method in methods}
                    assert ended == {UNAVAILABLE}
            for role in Role:
                async with open_channel(
                    address, tls=certificates.of(role), server_name=name
                ) as channel:
                    for method, takes_stream in methods:
                        if role not in may_call(method):
                            assert await status_of(channel, method, takes_stream) == DENIED
                            num_denied += 1
    assert num_methods > 20
    assert num_denied > 60


async def test_certificates_are_replaced_while_requests_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = Certificates(tmp_path)
    caplog.set_level(logging.INFO)
    made_anew = asyncio.Event()

    def connections() -> int:
        """How many have been made: of the gateway to the router, of it to the services."""
        return sum(
            "is up, on a" in line or "connected to expert service" in line
            for line in caplog.messages
        )

    async with (
        cluster_with(mine) as addresses,
        open_channel(addresses[Role.GATEWAY], tls=mine.of(Role.CLIENT)) as channel,
    ):
        client = Client(channel, addresses[Role.GATEWAY])

        async def ask_on() -> int:
            count = 0
            while not made_anew.is_set():
                deltas, _ = await client.complete(PROMPT, stop=STOP, **OPTIONS)
                ids = [id for delta in deltas for id in delta.token_ids]
                assert ids == expected
                count += 1
            return count

        deltas, _ = await client.complete(PROMPT, stop=STOP, **OPTIONS)
        expected = [id for delta in deltas for id in delta.token_ids]
        before = connections()
        assert before == 3
        async with asyncio.timeout(RENEWED_SECONDS), asyncio.TaskGroup() as asking:
            asked = [asking.create_task(ask_on()) for _ in range(2)]
            mine.make(list(Role))
            while connections() < 2 * before:  # noqa: ASYNC110 -- a log tells nobody
                await asyncio.sleep(0.05)
            made_anew.set()
        assert not [line for line in caplog.messages if line.startswith("lost expert service")]
        away = [
            "is connected to anew" in line
            for line in caplog.messages
            if "is connected to anew" in line or "connected to expert service" in line
        ]
        # Nobody else has the experts of either.
        assert away == [False, False, True, False, True, False]
    assert all(task.result() > 1 for task in asked)
