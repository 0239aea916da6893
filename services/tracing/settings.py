"""What an operator can set on a tracing service."""

from typing import Self

from pydantic import ByteSize, Field, NonNegativeFloat, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict

from services.runtime.addresses import ListenAddress
from services.runtime.tls_settings import ServingSettings, refuse_strangers


class TracingSettings(ServingSettings):
    """Receives traces by OTLP, keeps the latest in memory and shows them: a stand-in where no
    Jaeger runs.
    """

    model_config = SettingsConfigDict(env_prefix="MOESAIC_TRACING_", frozen=True)

    listen: ListenAddress = Field(
        "127.0.0.1:4317", description="address to receive OTLP on, by gRPC"
    )
    http: ListenAddress = Field(
        "127.0.0.1:16686", description="address of the page and of the query API, by HTTP"
    )
    max_traces: PositiveInt = Field(2_000, description="most traces kept; the oldest go first")
    max_bytes: ByteSize = Field(
        ByteSize(256 << 20),
        ge=1 << 20,
        description="most memory for traces; one alone gets at most a quarter of it",
    )
    drain_seconds: NonNegativeFloat = Field(
        2.0, allow_inf_nan=False, description="how long calls may go on when told to stop"
    )

    @model_validator(mode="after")
    def _the_page_is_kept_from_strangers(self) -> Self:
        if not self.insecure:  # it has no TLS
            refuse_strangers(self.http)
        return self
