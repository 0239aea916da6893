"""Traces and metrics leave the process where asked for, and only then."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.resources import Resource

from services.runtime.otlp.delivery import Delivery
from services.runtime.otlp.destination import GRPC, ExportTarget, Signal
from services.runtime.otlp.endpoint import grpc_endpoint
from services.runtime.server import serving
from services.runtime.span_outbox import SpanOutbox
from services.runtime.span_writing import SpanKind, SpanRef, encode_span

RECORDING = """
import asyncio, sys
from opentelemetry import metrics
from services.runtime.process import run_process
from services.runtime.span_writing import SpanKind
from services.runtime.tracing import begin_span

async def life(on_ready):
    metrics.get_meter("test").create_counter("moesaic.test.rows", "{row}").add(7)
    span = begin_span("step", SpanKind.INTERNAL)
    print("recording" if span else "silent")
    if span:
        span.end()
    BODY

sys.exit(run_process(life, service="router"))
"""
# Until stdin ends.
ON_AND_ON = "await asyncio.to_thread(sys.stdin.read)"
FLUSHING = """
from opentelemetry import metrics
from services.runtime.logs import configure_logging
from services.runtime.otlp.settings import load_telemetry
from services.runtime.span_writing import SpanKind
from services.runtime.telemetry import configure_telemetry
from services.runtime.tracing import begin_span

configure_logging("router", "info")
telemetry = load_telemetry("moesaic router")
with configure_telemetry("router", "1", telemetry, metrics_at=None, flush_seconds=SECONDS):
    metrics.get_meter("test").create_counter("moesaic.test.rows", "{row}").add(7)
    begin_span("step", SpanKind.INTERNAL).end()
"""


class Collector(
    trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[str] = []
        self.metrics: set[str] = set()
        self.resource: dict[str, str] = {}
        self.hangs = False
        self.address = ""
        self.got_metrics = asyncio.Semaphore(0)  # for each message of them

    async def Export(self, request: Any, context: Any) -> Any:
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            return self._traces(request)
        for resource in request.resource_metrics:
            self.metrics |= {one.name for scope in resource.scope_metrics for one in scope.metrics}
        self.got_metrics.release()
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _traces(
        self, request: trace_service_pb2.ExportTraceServiceRequest
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            self.resource = {
                one.key: one.value.string_value for one in resource.resource.attributes
            }
            self.spans += [span.name for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


class RefusingMetrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Answers as a collector does that has no such service."""

    def __init__(self) -> None:
        self.refused = asyncio.Semaphore(0)  # for each message

    async def Export(self, request: Any, context: Any) -> Any:
        self.refused.release()
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown service")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()

    def register(server: grpc.aio.Server) -> None:
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)

    async with serving(register, listen="127.0.0.1:0", service_names=[], drain_seconds=0) as port:
        collector.address = f"http://127.0.0.1:{port}"
        yield collector


@asynccontextmanager
async def started(variables: dict[str, str], script: str) -> AsyncIterator["Running"]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script),
        env=os.environ | variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Running:
    """A script that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ended(self) -> subprocess.CompletedProcess[str]:
        """End its stdin, and wait until it has ended."""
        out, errors = await self._process.communicate(b"")
        assert self._process.returncode is not None
        return subprocess.CompletedProcess(
            (), self._process.returncode, out.decode(), errors.decode()
        )


def recording(body: str) -> str:
    return RECORDING.replace("BODY", body)


async def record(variables: dict[str, str], body: str = "pass") -> subprocess.CompletedProcess[str]:
    async with started(variables, recording(body)) as running:
        return await running.ended()


async def flush_within(seconds: float, endpoint: str) -> subprocess.CompletedProcess[str]:
    """How a process that has recorded something ends, which takes no longer than that."""
    script = FLUSHING.replace("SECONDS", str(seconds))
    async with started({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, script) as running:
        return await running.ended()


async def test_without_an_endpoint_nothing_is_recorded() -> None:
    ended = await record({})
    assert (ended.returncode, ended.stdout) == (0, "silent\n")


async def test_with_an_endpoint_the_last_span_and_metric_arrive_before_the_process_ends(
    collector: Collector,
) -> None:
    ended = await record({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address})
    assert (ended.returncode, ended.stdout) == (0, "recording\n")
    assert collector.spans == ["step"]
    assert "moesaic.test.rows" in collector.metrics
    assert collector.resource["service.namespace"] == "moesaic"
    assert collector.resource["service.name"] == "router"
    assert collector.resource["service.instance.id"]


async def test_loop_lag_is_measured_where_metrics_are_asked_for(collector: Collector) -> None:
    often = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_METRIC_EXPORT_INTERVAL": "20",
    }
    async with started(often, recording(ON_AND_ON)):
        while "moesaic.loop.lag" not in collector.metrics:
            await collector.got_metrics.acquire()


async def test_a_collector_that_hangs_does_not_hold_up_the_end(collector: Collector) -> None:
    collector.hangs = True
    ended = await flush_within(0.2, collector.address)
    assert ended.returncode == 0
    assert "telemetry was not flushed within 0.2 s" in ended.stderr


async def test_a_collector_that_is_gone_costs_a_line_a_signal_and_no_time_at_the_end(
    unused_tcp_port: int,
) -> None:
    ended = await flush_within(60.0, f"http://127.0.0.1:{unused_tcp_port}")
    assert ended.returncode == 0
    assert ended.stderr.count("\n") == 2
    assert ended.stderr.count("spans are lost") == ended.stderr.count("metrics are lost") == 1


async def test_a_collector_without_metrics_costs_one_line_and_gets_the_spans(
    collector: Collector,
) -> None:
    refusing = RefusingMetrics()

    def register(server: grpc.aio.Server) -> None:
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(refusing, server)

    async with serving(register, listen="127.0.0.1:0", service_names=[], drain_seconds=0) as port:
        often = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_METRIC_EXPORT_INTERVAL": "20",
        }
        async with started(often, recording(ON_AND_ON)) as running:
            for _ in range(3):
                await refusing.refused.acquire()
            ended = await running.ended()
    assert (ended.returncode, collector.spans) == (0, ["step"])
    assert ended.stderr.count("\n") == 1
    assert "metrics are lost" in ended.stderr and "UNIMPLEMENTED" in ended.stderr


async def test_each_signal_alone_is_sent_where_it_alone_is_asked_for(collector: Collector) -> None:
    assert (
        await record({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": collector.address})
    ).stdout == "silent\n"
    assert (collector.spans, "moesaic.test.rows" in collector.metrics) == ([], True)
    collector.metrics.clear()
    assert (
        await record({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.address})
    ).stdout == "recording\n"
    assert (collector.spans, collector.metrics) == (["step"], set())


async def test_a_process_may_be_described_by_any_bytes(collector: Collector) -> None:
    variables = {
        "OTEL_SERVICE_NAME": "\udcff",
        "OTEL_RESOURCE_ATTRIBUTES": "team=a%20b,zone=%FF,\udcfe=c",
    }
    ended = await record({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address} | variables)
    assert (ended.returncode, ended.stderr, collector.spans) == (0, "", ["step"])
    assert collector.resource["service.name"] == "?"
    assert (collector.resource["team"], collector.resource["zone"]) == ("a b", "�")


async def test_a_variable_that_cannot_be_followed_ends_a_service_before_it_lives() -> None:
    ended = await record(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "moesaic router: OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json': it should be " in ended.stderr


async def test_a_remark_on_a_variable_is_logged_and_the_rest_goes_on(collector: Collector) -> None:
    ended = await record(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "OTEL_TRACES_SAMPLER": "sometimes"}
    )
    assert (ended.returncode, collector.spans) == (0, ["step"])
    assert ended.stderr.count("\n") == 1
    assert "OTEL_TRACES_SAMPLER: 'sometimes': it should be 'always_on'" in ended.stderr


async def test_a_disabled_sdk_records_and_serves_nothing(unused_tcp_port: int) -> None:
    off = {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    ended = await record(off | {"MOESAIC_METRICS_PORT": str(unused_tcp_port)})
    assert (ended.returncode, ended.stdout) == (0, "silent\n")
    assert f"OTEL_SDK_DISABLED: no metrics on port {unused_tcp_port} either" in ended.stderr


async def test_a_service_of_kubernetes_is_no_metrics_port() -> None:
    ended = await record(
        {"MOESAIC_METRICS_PORT": "tcp://10.0.0.1:9090", "MOESAIC_METRICS_SERVICE_PORT": "9090"}
    )
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_spans_beyond_what_may_wait_are_dropped_and_that_is_said_once(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    spans = [encode_span(name, SpanKind.INTERNAL, SpanRef.root(), b"", 5, 7) for name in "abcd"]
    delivery = Delivery(ExportTarget(Signal.TRACES, GRPC, grpc_endpoint(collector.address)))
    outbox = SpanOutbox(
        Resource({}),
        delivery,
        send_every_seconds=3600.0,  # all wait until it is closed
        max_waiting_bytes=2 * len(spans[0]),
    )
    for span in spans:
        outbox.put([span])
    await asyncio.to_thread(outbox.close)
    assert collector.spans == ["a", "b"]
    assert caplog.text.count("spans are dropped") == 1


async def test_prometheus_reads_the_metrics_port(unused_tcp_port: int) -> None:
    body = (
        "import urllib.request as asked; "
        f"url = 'http://127.0.0.1:{unused_tcp_port}/metrics'; "
        "print(asked.urlopen(url).read().decode()); "
        "head = asked.urlopen(asked.Request(url, method='HEAD')); "
        "print('HEAD', head.status, len(head.read()), int(head.headers['Content-Length']) > 0); "
        "open_metrics = asked.Request(url, headers={'Accept': 'application/openmetrics-text'}); "
        "print(asked.urlopen(open_metrics).read().decode())"
    )
    ended = await record({"MOESAIC_METRICS_PORT": str(unused_tcp_port)}, body)
    assert ended.returncode == 0
    assert "moesaic_test_rows" in ended.stdout
    assert "otel_scope" not in ended.stdout, "labels that say nothing"
    assert "HEAD 200 0 True" in ended.stdout
    assert ended.stdout.rstrip().endswith("# EOF")


async def test_a_metrics_port_in_use_is_one_line(collector: Collector) -> None:
    port = collector.address.rpartition(":")[2]
    ended = await record({"MOESAIC_METRICS_PORT": port})
    assert ended.returncode == 1
    assert (
        f"moesaic router: cannot serve metrics on port {port} of 127.0.0.1: Address already in use"
        in ended.stderr
    )
