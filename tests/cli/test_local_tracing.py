"""Under `--tracing` traces go to the cluster's own tracing service, whatever the environment says
of them.
"""

import pytest

from services.cli.local_tracing import LocalTracing
from services.runtime.otlp.settings import Telemetry, load_telemetry

TRACING = LocalTracing("http://127.0.0.1:4317", "http://127.0.0.1:16686")


def asked(
    monkeypatch: pytest.MonkeyPatch, every_trace: bool = False, **environment: str
) -> Telemetry:
    """What a process of the cluster is asked for under such an environment."""
    for name, value in environment.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    own = {f"OTEL_{name}": value for name, value in environment.items()}
    return load_telemetry("moesaic test", own | TRACING.variables(every_trace=every_trace))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"EXPORTER_OTLP_ENDPOINT": "https://elsewhere:1"},
        {"EXPORTER_OTLP_TRACES_ENDPOINT": "http://elsewhere:1"},
        {"EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
        {"TRACES_EXPORTER": "none"},
        {"SDK_DISABLED": "true"},
    ],
)
def test_traces_go_to_the_tracing_service(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    traces = asked(monkeypatch, every_trace=False, **environment).traces
    assert traces is not None
    assert (traces.endpoint.target, traces.protocol, traces.security) == (
        "127.0.0.1:4317",
        "grpc",
        None,
    )


def test_metrics_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch).metrics is None
    elsewhere = asked(
        monkeypatch,
        EXPORTER_OTLP_ENDPOINT="http://elsewhere:1",
        EXPORTER_OTLP_PROTOCOL="http/protobuf",
    ).metrics
    assert elsewhere is not None
    assert elsewhere.endpoint.target == "http://elsewhere:1/v1/metrics"
    assert asked(monkeypatch, SDK_DISABLED="true").metrics is None


def test_a_request_whose_trace_is_to_be_shown_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    off = {"TRACES_SAMPLER": "always_off"}
    assert (
        asked(monkeypatch, every_trace=True, **off).sampler.get_description() == "AlwaysOnSampler"
    )
    assert (
        asked(monkeypatch, every_trace=False, **off).sampler.get_description() == "AlwaysOffSampler"
    )
