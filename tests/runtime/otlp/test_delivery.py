"""Messages get to real collectors by either protocol, and one that takes nothing costs one line."""

import asyncio
import gzip
import logging
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from services.runtime.otlp.delivery import Delivery
from services.runtime.otlp.destination import GRPC, HTTP, ExportTarget, Signal
from services.runtime.otlp.endpoint import grpc_endpoint, http_endpoint
from services.runtime.otlp.grpc_sender import METHODS
from services.runtime.otlp.security import Security
from services.runtime.server import serving

PROXIES = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "grpc_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)
NOBODY = "http://127.0.0.1:9"


@dataclass
class Collector:
    """What came by either protocol, and what is answered: gRPC's statuses or HTTP's, each once,
    then success.
    """

    destination: ExportTarget
    paths: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    failures: list[Any] = field(default_factory=list)
    answer: bytes = b""

    def take(self, path: str, headers: dict[str, str], message: bytes) -> Any:
        """Keep what came; a failure to be answered, or None."""
        self.paths.append(path)
        self.headers = headers
        if self.failures:
            return self.failures.pop(0)
        self.messages.append(message)
        return None


def add(export: Callable[..., Awaitable[bytes]], server: grpc.aio.Server) -> None:
    """Have a server take spans so."""
    _, service, method = METHODS[Signal.TRACES].split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(export)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])


@pytest.fixture
async def grpc_collector() -> AsyncIterator[Collector]:
    collector = Collector(ExportTarget(Signal.TRACES, GRPC, grpc_endpoint(NOBODY)))

    async def export(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        method = METHODS[Signal.TRACES]
        failure = collector.take(method, dict(context.invocation_metadata() or ()), message)
        if failure is not None:
            await context.abort(failure, "not\nnow")
        return collector.answer

    async with serving(
        partial(add, export), listen="127.0.0.1:0", service_names=[], drain_seconds=0
    ) as port:
        collector.destination = replace(
            collector.destination, endpoint=grpc_endpoint(f"http://127.0.0.1:{port}")
        )
        yield collector


@pytest.fixture
def http_collector() -> Iterator[Collector]:
    collector = Collector(ExportTarget(Signal.TRACES, HTTP, http_endpoint(NOBODY, None)))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = self.rfile.read(int(self.headers["content-length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            status = collector.take(self.path, headers, message) or 200
            self.send_response(status)
            if status in (301, 307):
                self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(collector.answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = http_endpoint(f"http://127.0.0.1:{server.server_port}", "v1/traces")
        collector.destination = replace(collector.destination, endpoint=endpoint)
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=[GRPC, HTTP])
def collector(
    request: pytest.FixtureRequest, grpc_collector: Collector, http_collector: Collector
) -> Collector:
    return grpc_collector if request.param == GRPC else http_collector


async def deliver(destination: ExportTarget, *messages: bytes) -> list[bool]:
    """Which of the messages were taken."""

    def deliver_all() -> list[bool]:
        delivery = Delivery(destination)
        try:
            return [delivery.deliver(partial(bytes, message)) for message in messages]
        finally:
            delivery.close()

    return await asyncio.to_thread(deliver_all)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_message_arrives_with_its_headers(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    destination = replace(collector.destination, headers=(("authorization", "Basic YWI6Yw=="),))
    assert await deliver(destination, b"one", b"two") == [True, True]
    assert collector.messages == [b"one", b"two"]
    assert set(collector.paths) <= {"/v1/traces", METHODS[Signal.TRACES]}
    assert collector.headers["authorization"] == "Basic YWI6Yw=="
    assert lines(caplog) == []


async def test_by_http_a_message_says_what_it_is_and_may_be_compressed(
    http_collector: Collector,
) -> None:
    message = b"x" * 1000
    assert await deliver(replace(http_collector.destination, is_compressed=True), message) == [True]
    (received,) = http_collector.messages
    assert gzip.decompress(received) == message
    assert http_collector.headers["content-type"] == "application/x-protobuf"
    assert http_collector.headers["content-encoding"] == "gzip"


async def test_by_grpc_a_message_may_be_compressed(grpc_collector: Collector) -> None:
    assert await deliver(replace(grpc_collector.destination, is_compressed=True), b"x" * 1000) == [
        True
    ]
    assert grpc_collector.messages == [b"x" * 1000]


async def test_no_proxy_comes_between_this_machine_and_itself(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, NOBODY)
    assert await deliver(collector.destination, b"one") == [True]


async def test_a_proxy_is_used_for_a_collector_elsewhere(
    http_collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = http_collector.destination.endpoint.target.split(":")[2].partition("/")[0]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    endpoint = http_endpoint("http://collector.invalid:4318", "v1/traces")
    assert await deliver(replace(http_collector.destination, endpoint=endpoint), b"one") == [True]
    assert http_collector.paths == ["http://collector.invalid:4318/v1/traces"]


async def test_what_may_pass_is_tried_again(
    grpc_collector: Collector, http_collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    grpc_collector.failures, http_collector.failures = [grpc.StatusCode.UNAVAILABLE], [503]
    for collector in (grpc_collector, http_collector):
        assert await deliver(collector.destination, b"one") == [True]
        assert (len(collector.paths), collector.messages) == (2, [b"one"])
    assert lines(caplog) == []


@pytest.mark.parametrize("status", [404, 400, 301, 307])
async def test_by_http_what_will_never_be_taken_is_lost_and_said_once_until_it_is_taken(
    http_collector: Collector, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    http_collector.failures = [status, status]
    assert await deliver(http_collector.destination, b"one", b"two", b"three") == [
        False,
        False,
        True,
    ]
    assert http_collector.paths == ["/v1/traces"] * 3
    target = http_collector.destination.endpoint.target
    lost, taken = lines(caplog)
    assert lost.startswith(
        f"spans are lost: {target} does not take them by http/protobuf: status {status} "
    )
    assert taken == f"spans are taken again by {target}"


async def test_by_grpc_a_service_that_is_not_there_is_said_once(
    grpc_collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    destination = replace(grpc_collector.destination, signal=Signal.METRICS)
    assert await deliver(destination, b"one", b"two") == [False, False]
    (line,) = lines(caplog)
    target = destination.endpoint.target
    assert line.startswith(
        f"metrics are lost: {target} does not take them by grpc: UNIMPLEMENTED: "
    )


async def test_a_collectors_words_are_one_line(
    grpc_collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    grpc_collector.failures = [grpc.StatusCode.INVALID_ARGUMENT]
    await deliver(grpc_collector.destination, b"one")
    assert lines(caplog)[0].endswith("INVALID_ARGUMENT: not now")


@pytest.mark.parametrize("signal", Signal)
async def test_what_a_collector_refuses_of_a_message_is_said(
    http_collector: Collector, caplog: pytest.LogCaptureFixture, signal: Signal
) -> None:
    response = (
        ExportTraceServiceResponse() if signal is Signal.TRACES else ExportMetricsServiceResponse()
    )
    rejected = "rejected_spans" if signal is Signal.TRACES else "rejected_data_points"
    setattr(response.partial_success, rejected, 3)
    response.partial_success.error_message = "too old"
    http_collector.answer = response.SerializeToString()
    await deliver(replace(http_collector.destination, signal=signal), b"one", b"two")
    (line,) = lines(caplog)
    assert line.endswith("3 refused: too old")


async def test_an_answer_that_is_no_message_is_none_to_worry_about(
    http_collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    http_collector.answer = b"{}"
    assert await deliver(http_collector.destination, b"one") == [True]
    assert lines(caplog) == []


async def test_a_message_that_cannot_be_encoded_is_lost_and_nothing_else(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> bytes:
        raise ValueError("no text")

    delivery = Delivery(collector.destination)
    assert not await asyncio.to_thread(delivery.deliver, fail)
    assert await asyncio.to_thread(delivery.deliver, lambda: b"one")
    delivery.close()
    assert lines(caplog)[0].endswith("ValueError: no text")
    assert collector.messages == [b"one"]


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
async def test_at_the_end_a_collector_that_is_gone_is_tried_twice_and_not_waited_for(
    protocol: str, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    endpoint = grpc_endpoint(url) if protocol == GRPC else http_endpoint(url, None)
    delivery = Delivery(ExportTarget(Signal.TRACES, protocol, endpoint, timeout_seconds=None))
    delivery.hurry()  # else it would be tried for ever
    assert not await asyncio.to_thread(delivery.deliver, lambda: b"one")
    delivery.close()
    assert len(lines(caplog)) == 1


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Security:
    """A certificate for localhost that is its own authority."""
    folder: Path = tmp_path_factory.mktemp("certified")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    files = ["-keyout", str(key), "-out", str(certificate), "-days", "2"]
    try:
        subprocess.run([*make, *subject, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make certificates with")
    return Security(certificate, certificate, key)


@asynccontextmanager
async def secure_collector(protocol: str, certified: Security) -> AsyncIterator[int]:
    """Takes everything from those who have the certificate too; yields its port."""
    if protocol == GRPC:
        assert certified.key is not None and certified.certificate is not None
        key, certificate = certified.key.read_bytes(), certified.certificate.read_bytes()
        server = grpc.aio.server()
        port = server.add_secure_port(
            "127.0.0.1:0",
            grpc.ssl_server_credentials(
                [(key, certificate)], certificate, require_client_auth=True
            ),
        )

        async def export(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return b""

        add(export, server)
        await server.start()
        try:
            yield port
        finally:
            await server.stop(0)
        return
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certified.roots)
    context.verify_mode = ssl.CERT_REQUIRED
    assert certified.certificate is not None
    context.load_cert_chain(certified.certificate, certified.key)

    async def take(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
async def test_a_secure_collector_is_told_by_the_certificate_that_is_named(
    protocol: str, certified: Security, caplog: pytest.LogCaptureFixture
) -> None:
    async with secure_collector(protocol, certified) as port:
        url = f"https://localhost:{port}"
        endpoint = grpc_endpoint(url) if protocol == GRPC else http_endpoint(url, None)
        trusting = ExportTarget(Signal.TRACES, protocol, endpoint, certified)
        assert await deliver(trusting, b"one") == [True]
        doubting = replace(trusting, security=Security(), timeout_seconds=0.2)
        assert await deliver(doubting, b"one") == [False]
    assert len(lines(caplog)) == 1
