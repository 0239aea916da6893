"""Sends a signal's messages to a collector as they are, by gRPC."""

from pathlib import Path

import grpc

from services.runtime.otlp.destination import ExportTarget, Signal
from services.runtime.otlp.not_taken import NotTaken
from services.runtime.otlp.security import Security
from services.wire.quoting import peers_words

METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
OPTIONS = (
    # A collector that was started again is back in use at once: gRPC's own backoff grows to two
    # minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
WITHOUT_PROXY = (("grpc.enable_http_proxy", 0),)
# As OTLP's specification has it; RESOURCE_EXHAUSTED may pass where its details say when to come
# again.
MAY_PASS = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
STATUS_DETAILS = "grpc-status-details-bin"


class GrpcSender:
    """A connection to a collector. A proxy meant for the web is used for collectors of other
    machines alone.
    """

    def __init__(self, destination: ExportTarget) -> None:
        self._channel = _channel(destination)
        self._export = self._channel.unary_unary(METHODS[destination.signal])
        self._metadata = destination.headers
        self._compression = (
            grpc.Compression.Gzip if destination.is_compressed else grpc.Compression.NoCompression
        )

    def send(self, message: bytes, timeout_seconds: float | None) -> bytes:
        """The collector's answer. Raises NotTaken."""
        try:
            answer: bytes = self._export(
                message,
                timeout=timeout_seconds,
                metadata=self._metadata,
                compression=self._compression,
            )
        except grpc.RpcError as error:
            raise NotTaken(
                f"{error.code().name}: {peers_words(error.details() or '')}",
                may_pass=_may_pass(error),
            ) from error
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def _channel(destination: ExportTarget) -> grpc.Channel:
    endpoint, security = destination.endpoint, destination.security
    options = OPTIONS + (WITHOUT_PROXY if endpoint.is_loopback else ())
    if security is None:
        return grpc.insecure_channel(endpoint.target, options)
    return grpc.secure_channel(endpoint.target, _credentials(security), options)


def _credentials(security: Security) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_content(security.roots),
        private_key=_content(security.key),
        certificate_chain=_content(security.certificate),
    )


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def _may_pass(error: grpc.RpcError) -> bool:
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return any(key == STATUS_DETAILS for key, _ in error.trailing_metadata() or ())
    return error.code() in MAY_PASS
