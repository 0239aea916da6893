"""Where one signal goes and how, as the variables for it and those for all signals say."""

import enum
from dataclasses import dataclass

from services.runtime.otlp.endpoint import Endpoint, grpc_endpoint, http_endpoint
from services.runtime.otlp.security import Security
from services.runtime.otlp.variables import Found, OtelVariables

GRPC, HTTP = "grpc", "http/protobuf"
DEFAULT_ENDPOINTS = {GRPC: "http://localhost:4317", HTTP: "http://localhost:4318"}
DEFAULT_TIMEOUT_MILLIS = 10_000
GENERAL = "OTEL_EXPORTER_OTLP"


class Signal(enum.Enum):
    """What is exported: `TRACES` and `METRICS` as the variables' names have it, and what a log
    calls it.
    """

    TRACES = "spans"
    METRICS = "metrics"

    @property
    def http_path(self) -> str:
        """What is added to the URL for all signals."""
        return f"v1/{self.name.lower()}"


@dataclass(frozen=True)
class ExportTarget:
    """Where a signal goes. `security` is None for plain text, `timeout_seconds` for no limit."""

    signal: Signal
    protocol: str
    endpoint: Endpoint
    security: Security | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout_seconds: float | None = DEFAULT_TIMEOUT_MILLIS / 1000
    is_compressed: bool = False

    @classmethod
    def read(cls, signal: Signal, variables: OtelVariables) -> "ExportTarget | None":
        """Where the variables have this signal sent; None where nobody asks for it."""
        own = f"{GENERAL}_{signal.name}"
        is_asked = _is_asked(signal, variables)
        if is_asked is None:
            is_asked = variables.find(f"{own}_ENDPOINT", f"{GENERAL}_ENDPOINT") is not None
        return cls._read(signal, own, variables) if is_asked else None

    @classmethod
    def _read(cls, signal: Signal, own: str, variables: OtelVariables) -> "ExportTarget | None":
        def names(what: str) -> tuple[str, str]:
            return f"{own}_{what}", f"{GENERAL}_{what}"

        protocol = variables.choice((GRPC, HTTP), GRPC, *names("PROTOCOL"))
        millis = variables.number(DEFAULT_TIMEOUT_MILLIS, *names("TIMEOUT"))
        headers = variables.headers(*names("HEADERS"))
        is_compressed = variables.choice(("none", "gzip"), "none", *names("COMPRESSION")) == "gzip"
        is_insecure = protocol == GRPC and variables.flag(*names("INSECURE"))
        found = variables.find(*names("ENDPOINT")) or Found(
            f"{GENERAL}_ENDPOINT", DEFAULT_ENDPOINTS[protocol]
        )
        try:
            endpoint = _endpoint(signal, protocol, found, is_signals_own=found.name.startswith(own))
        except ValueError as error:
            variables.refuse(found, str(error))
            return None
        is_secure = not is_insecure if endpoint.is_secure is None else endpoint.is_secure
        security = Security.read(variables, (own, GENERAL)) if is_secure else None
        return cls(
            signal, protocol, endpoint, security, headers, millis / 1000 or None, is_compressed
        )


def _is_asked(signal: Signal, variables: OtelVariables) -> bool | None:
    """What the variable that names the signal's exporters says; None where it says nothing."""
    found = variables.find(f"OTEL_{signal.name}_EXPORTER")
    if found is None:
        return None
    exporters = {name.strip() for name in found.value.lower().split(",")} - {""}
    if exporters <= {"otlp"} or exporters == {"none"}:
        return None if not exporters else "otlp" in exporters
    hint = (
        "; MOESAIC_METRICS_PORT serves metrics to Prometheus" if "prometheus" in exporters else ""
    )
    variables.refuse(found, f"it should be 'otlp' or 'none'{hint}")
    return False


def _endpoint(signal: Signal, protocol: str, found: Found, *, is_signals_own: bool) -> Endpoint:
    if protocol == GRPC:
        return grpc_endpoint(found.value)
    return http_endpoint(found.value, None if is_signals_own else signal.http_path)
