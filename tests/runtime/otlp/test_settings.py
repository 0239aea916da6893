"""OpenTelemetry's variables: followed as the specification says, refused by name, or
remarked on.
"""

from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality

from services.runtime.otlp.settings import Telemetry, load_telemetry

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


def targets(**variables: str) -> tuple[str | None, str | None]:
    """Where traces and metrics go."""
    telemetry = load_telemetry(
        "moesaic test", {f"OTEL_{name}": value for name, value in variables.items()}
    )
    traces, metrics = telemetry.traces, telemetry.metrics
    return traces.endpoint.target if traces else None, metrics.endpoint.target if metrics else None


def asked(**variables: str) -> Telemetry:
    """What is asked for beside an endpoint."""
    return load_telemetry(
        "moesaic test", ENDPOINT | {f"OTEL_{name}": value for name, value in variables.items()}
    )


def refusal(capsys: pytest.CaptureFixture[str], **variables: str) -> str:
    """The only line of a refusal."""
    with pytest.raises(SystemExit) as exit_info:
        asked(**variables)
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    "endpoint", ["http://me:secret@collector:4317", "me:secret@collector:4317"]
)
def test_credentials_of_an_endpoint_are_not_repeated(
    endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, EXPORTER_OTLP_ENDPOINT=endpoint)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in line
    assert "secret" not in line


@pytest.mark.parametrize("name", ["content-length", "Transfer-Encoding", "content-encoding"])
def test_headers_that_would_garble_what_is_sent_are_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, EXPORTER_OTLP_HEADERS=f"a=b,{name}=5")
    assert f"OTEL_EXPORTER_OTLP_HEADERS: header 2 is {name.lower()}" in line


def test_each_signal_goes_where_its_own_variable_says_else_where_the_one_for_all_says() -> None:
    url, other = "http://collector:4317", "http://other:1"
    assert targets() == (None, None)
    assert targets(EXPORTER_OTLP_ENDPOINT=url) == ("collector:4317", "collector:4317")
    assert targets(EXPORTER_OTLP_TRACES_ENDPOINT=url) == ("collector:4317", None)
    assert targets(EXPORTER_OTLP_METRICS_ENDPOINT=url) == (None, "collector:4317")
    assert targets(EXPORTER_OTLP_ENDPOINT=url, EXPORTER_OTLP_TRACES_ENDPOINT=other) == (
        "other:1",
        "collector:4317",
    )
    assert (
        targets(EXPORTER_OTLP_ENDPOINT=url, EXPORTER_OTLP_TRACES_ENDPOINT=" ")
        == ("collector:4317",) * 2
    )
    assert targets(EXPORTER_OTLP_ENDPOINT="") == (None, None)


def test_an_exporter_of_none_switches_its_signal_off_and_otlp_asks_for_it() -> None:
    url = "http://collector:4317"
    assert targets(EXPORTER_OTLP_ENDPOINT=url, TRACES_EXPORTER="none") == (None, "collector:4317")
    assert targets(EXPORTER_OTLP_ENDPOINT=url, METRICS_EXPORTER="None") == ("collector:4317", None)
    assert targets(EXPORTER_OTLP_ENDPOINT=url, METRICS_EXPORTER="") == ("collector:4317",) * 2
    assert targets(TRACES_EXPORTER="otlp") == ("localhost:4317", None)
    http = {"TRACES_EXPORTER": "otlp", "EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    assert targets(**http) == ("http://localhost:4318/v1/traces", None)


@pytest.mark.parametrize("value", ["true", "TRUE", " True "])
def test_a_disabled_sdk_exports_nothing_whatever_else_is_said(value: str) -> None:
    disabled = asked(SDK_DISABLED=value, EXPORTER_OTLP_PROTOCOL="nonsense")
    assert (disabled.traces, disabled.metrics, disabled.is_disabled) == (None, None, True)


@pytest.mark.parametrize("value", ["1", "yes", "on"])
def test_other_words_than_true_do_not_disable_and_are_remarked_on(value: str) -> None:
    telemetry = asked(SDK_DISABLED=value)
    assert telemetry.traces is not None
    (remark,) = telemetry.remarks
    assert remark == f"OTEL_SDK_DISABLED: '{value}': it should be 'false' or 'true'; false is taken"


@pytest.mark.parametrize(
    ("endpoint", "own", "traces"),
    [
        ("http://collector:4318", "", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "", "http://collector:4318/v1/traces"),
        ("https://collector/base/", "", "https://collector/base/v1/traces"),
        ("http://c:1/?key=x", "", "http://c:1/v1/traces?key=x"),
        ("http://collector:4318", "http://other:1/here", "http://other:1/here"),
        ("http://collector:4318", "http://other:1", "http://other:1/"),
    ],
)
def test_by_http_the_url_for_all_gets_the_signals_path_and_its_own_is_taken_as_it_is(
    endpoint: str, own: str, traces: str
) -> None:
    variables = {"EXPORTER_OTLP_PROTOCOL": "HTTP/protobuf", "EXPORTER_OTLP_ENDPOINT": endpoint}
    assert targets(**variables, EXPORTER_OTLP_TRACES_ENDPOINT=own)[0] == traces


@pytest.mark.parametrize(
    ("endpoint", "target", "is_secure"),
    [
        ("http://collector:4317/", "collector:4317", False),
        ("https://collector:4317", "collector:4317", True),
        ("https://collector", "collector:443", True),
        ("http://[::1]:4317", "[::1]:4317", False),
        ("collector:4317", "collector:4317", True),
        ("[::1]:4317", "[::1]:4317", True),
        ("dns:///collector:4317", "dns:///collector:4317", True),
        ("unix:///run/collector.sock", "unix:///run/collector.sock", True),
    ],
)
def test_by_grpc_a_url_says_whether_it_is_secure_and_an_address_is_unless_told_otherwise(
    endpoint: str, target: str, is_secure: bool
) -> None:
    traces = asked(EXPORTER_OTLP_ENDPOINT=endpoint).traces
    assert traces is not None
    assert (traces.endpoint.target, traces.security is not None) == (target, is_secure)
    insecure = asked(EXPORTER_OTLP_ENDPOINT=endpoint, EXPORTER_OTLP_INSECURE="true").traces
    assert insecure is not None
    assert (insecure.security is not None) == endpoint.startswith("https")


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("0.0.0.0", True),
        ("[0:0::0]", True),
        ("[::ffff:0:0]", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("collector", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_loopback_is_told_by_its_name_or_address(
    host: str, is_loopback: bool, protocol: str
) -> None:
    traces = asked(
        EXPORTER_OTLP_ENDPOINT=f"http://{host}:1", EXPORTER_OTLP_PROTOCOL=protocol
    ).traces
    assert traces is not None
    assert traces.endpoint.is_loopback is is_loopback


def test_a_signals_own_variable_goes_before_the_one_for_all() -> None:
    telemetry = asked(
        EXPORTER_OTLP_PROTOCOL="http/protobuf",
        EXPORTER_OTLP_METRICS_PROTOCOL="grpc",
        EXPORTER_OTLP_HEADERS="Authorization=Basic%20YWI6Yw==, x = 1",
        EXPORTER_OTLP_METRICS_HEADERS="y=2,",
        EXPORTER_OTLP_TIMEOUT="2500",
        EXPORTER_OTLP_METRICS_TIMEOUT="0",
        EXPORTER_OTLP_METRICS_COMPRESSION="gzip",
        EXPORTER_OTLP_COMPRESSION="none",
    )
    traces, metrics = telemetry.traces, telemetry.metrics
    assert traces is not None and metrics is not None
    assert (traces.protocol, metrics.protocol) == ("http/protobuf", "grpc")
    assert traces.headers == (("authorization", "Basic YWI6Yw=="), ("x", "1"))
    assert metrics.headers == (("y", "2"),)
    assert (traces.timeout_seconds, metrics.timeout_seconds) == (2.5, None)
    assert (traces.is_compressed, metrics.is_compressed) == (False, True)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("EXPORTER_OTLP_PROTOCOL", "http/json", "it should be 'grpc' or 'http/protobuf'"),
        ("EXPORTER_OTLP_TRACES_PROTOCOL", "thrift", "it should be 'grpc' or 'http/protobuf'"),
        ("EXPORTER_OTLP_METRICS_COMPRESSION", "zstd", "it should be 'none' or 'gzip'"),
        ("TRACES_EXPORTER", "zipkin", "it should be 'otlp' or 'none'"),
        ("TRACES_EXPORTER", "otlp,console", "it should be 'otlp' or 'none'"),
        (
            "METRICS_EXPORTER",
            "prometheus",
            "it should be 'otlp' or 'none'; MOESAIC_METRICS_PORT serves metrics to Prometheus",
        ),
        (
            "EXPORTER_OTLP_CERTIFICATE",
            "/not/there.pem",
            "cannot be used: No such file or directory",
        ),
        (
            "EXPORTER_OTLP_CLIENT_KEY",
            "/not/there.pem",
            "a client's certificate and its key go together",
        ),
        (
            "CONFIG_FILE",
            "/otel.yaml",
            "such a file is not read; it should be unset, and variables say what it says",
        ),
    ],
)
def test_what_decides_where_data_goes_and_cannot_be_followed_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], name: str, value: str, reason: str
) -> None:
    secure = {"EXPORTER_OTLP_ENDPOINT": "https://collector:4317"}
    assert (
        refusal(capsys, **secure, **{name: value})
        == f"moesaic test: OTEL_{name}: '{value}': {reason}"
    )


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://c:1",
        "http://",
        "http://c:99999",
        "http://c:x",
        "http://[::1",
        "http://a b:1",
        "c",
        "c:0",
    ],
)
def test_what_is_no_endpoint_is_refused(
    capsys: pytest.CaptureFixture[str], endpoint: str, protocol: str
) -> None:
    line = refusal(capsys, EXPORTER_OTLP_ENDPOINT=endpoint, EXPORTER_OTLP_PROTOCOL=protocol)
    assert line.startswith(
        f"moesaic test: OTEL_EXPORTER_OTLP_ENDPOINT: '{endpoint}': it should be http://host:port"
    )


def test_by_http_an_endpoint_is_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, EXPORTER_OTLP_ENDPOINT="c:4318", EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert line.endswith("it should be http://host:port or https://host:port")


@pytest.mark.parametrize(
    "headers",
    [
        "secret",
        "a b=secret",
        "a=b,=secret",
        "token=secr%C3%A9t",
        "token-bin=secret",
        "TOKEN-BIN=secret",
    ],
)
def test_bad_headers_are_refused_without_showing_secrets(
    capsys: pytest.CaptureFixture[str], headers: str
) -> None:
    line = refusal(capsys, EXPORTER_OTLP_HEADERS=headers)
    assert line.startswith("moesaic test: OTEL_EXPORTER_OTLP_HEADERS: header ")
    assert line.endswith("should be key=value in printable ASCII")
    assert "secr" not in line
    line = refusal(capsys, EXPORTER_OTLP_ENDPOINT="http://me:secret@c:1")
    assert "OTEL_EXPORTER_OTLP_HEADERS" in line and "secret" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRACES_SAMPLER", "sometimes"),
        ("EXPORTER_OTLP_TIMEOUT", "soon"),
        ("EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
        ("METRIC_EXPORT_INTERVAL", "0"),
        ("METRIC_EXPORT_INTERVAL", "nan"),
        ("METRIC_EXPORT_TIMEOUT", "inf"),
        ("METRICS_EXEMPLAR_FILTER", "some"),
        ("EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "eternal"),
        ("EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "mean"),
        ("EXPORTER_OTLP_INSECURE", "maybe"),
        ("RESOURCE_ATTRIBUTES", "team"),
        ("RESOURCE_ATTRIBUTES", "=nobody"),
        ("PROPAGATORS", "b3"),
    ],
)
def test_what_the_specification_has_ignored_costs_a_line(name: str, value: str) -> None:
    (remark,) = asked(**{name: value}).remarks
    assert remark.startswith(f"OTEL_{name}: '{value}': it should ")
    assert remark.endswith(" is taken")
    assert asked(**{name: ""}).remarks == ()


@pytest.mark.parametrize("argument", ["", "half", "1.5", "-1", "nan"])
def test_a_ratio_that_is_none_samples_all(argument: str) -> None:
    telemetry = asked(TRACES_SAMPLER="traceidratio", TRACES_SAMPLER_ARG=argument)
    assert telemetry.sampler.get_description() == "TraceIdRatioBased{1.0}"
    assert len(telemetry.remarks) == bool(argument)


def test_samplers_are_those_of_the_specification() -> None:
    assert (
        "TraceIdRatioBased{0.25}"
        in asked(
            TRACES_SAMPLER="ParentBased_TraceIDRatio", TRACES_SAMPLER_ARG="0.25"
        ).sampler.get_description()
    )
    assert asked(TRACES_SAMPLER="always_off").sampler.get_description() == "AlwaysOffSampler"
    assert asked().sampler.get_description().startswith("ParentBased{root:AlwaysOnSampler")


def test_what_tunes_the_sdks_own_spans_is_said_not_to_be_followed() -> None:
    assert asked(
        BSP_SCHEDULE_DELAY="soon", SPAN_ATTRIBUTE_COUNT_LIMIT="many", SPAN_EVENT_COUNT_LIMIT=""
    ).remarks == (
        "OTEL_BSP_SCHEDULE_DELAY is not followed here",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT is not followed here",
    )


def test_a_process_is_described_by_its_variables() -> None:
    attributes = asked(
        RESOURCE_ATTRIBUTES="team=a%20b, service.name=mine,,zone = \udcff"
    ).attributes
    assert attributes == {"team": "a b", "service.name": "mine", "zone": "?"}
    assert asked(RESOURCE_ATTRIBUTES="service.name=mine", SERVICE_NAME="named").attributes == {
        "service.name": "named"
    }


def test_metrics_are_put_as_their_variables_say() -> None:
    settings = asked(
        METRIC_EXPORT_INTERVAL="5000",
        EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="LowMemory",
        EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION="base2_exponential_bucket_histogram",
    ).metric_settings
    assert settings.interval_millis == 5000
    assert settings.preferred_temporality == dict.fromkeys(
        (Counter, Histogram), AggregationTemporality.DELTA
    )
    assert settings.preferred_aggregation.keys() == {Histogram}


def test_a_file_that_is_no_certificate_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "roots.pem"
    path.write_text("no certificate")
    line = refusal(
        capsys, EXPORTER_OTLP_ENDPOINT="https://c:1", EXPORTER_OTLP_TRACES_CERTIFICATE=str(path)
    )
    assert line.startswith(
        f"moesaic test: OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: '{path}': cannot be used: "
    )
