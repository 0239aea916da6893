"""What an operator can set on a gateway."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict

from services.runtime.addresses import ListenAddress, OptionalListenAddress, ServiceTarget
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.runtime.settings import Accessory
from services.runtime.tls_settings import ServingSettings, refuse_strangers


class GatewaySettings(ServingSettings):
    """Turns text into token ids and back, admits requests and passes them to the routers in
    micro-batches.
    """

    model_config = SettingsConfigDict(env_prefix="MOESAIC_GATEWAY_", frozen=True)

    listen: ListenAddress = Field("127.0.0.1:50051", description="address to serve on")
    routers: list[ServiceTarget] = Field(
        ["127.0.0.1:50052"],
        min_length=1,
        description="routers as host:port; dns:///name:port for every address of a name",
    )
    model: Path = Field(
        EMBEDDED_MODEL, description="checkpoint directory, for tokenizer and chat template"
    )
    model_name: str | None = Field(
        None, min_length=1, description="name that requests ask for; unset for the directory's"
    )
    generation_config: Literal["auto", "ignore"] = Field(
        "auto",
        description="whether the checkpoint's generation_config.json says how tokens are drawn "
        "where a request does "
        "not; ignore takes nothing but stop tokens from it",
    )
    max_prompt_bytes: PositiveInt = Field(
        1 << 20, description="most bytes of a prompt's text, as UTF-8"
    )
    metrics_aliases: Literal["vllm"] | None = Field(
        None,
        description="serve metrics of requests to Prometheus by vLLM's names, too, for dashboards "
        "and balancers that know those",
    )
    max_waiting_requests: PositiveInt = Field(
        256, description="most requests that wait; one more is refused"
    )
    max_waiting_tokens: PositiveInt = Field(
        262_144, description="most prompt tokens that wait; a single request is always let in"
    )
    max_calls: PositiveInt = Field(
        1_024, description="most calls under way, those that wait included; one more is refused"
    )
    max_client_share: PositiveFloat = Field(
        0.5,
        le=1.0,
        description="most that one client may have of calls, and of requests and tokens that wait; "
        "and one host of connections over HTTP",
    )
    max_batch_requests: PositiveInt = Field(
        32, description="most requests given to a router at once"
    )
    max_batch_tokens: PositiveInt = Field(
        16_384,
        description="most prompt tokens given to a router at once; a longer prompt goes alone",
    )
    requests_per_second: NonNegativeFloat = Field(
        0.0, allow_inf_nan=False, description="rate that each client is paced to; 0 for no limit"
    )
    tokens_per_second: NonNegativeFloat = Field(
        0.0,
        allow_inf_nan=False,
        description="rate of each client's prompt and generated tokens, beyond which its requests "
        "are refused for a while; 0 for no limit",
    )
    max_paced_requests: PositiveInt = Field(
        32, description="most requests of one client that wait for its rate; one more is refused"
    )
    max_clients: PositiveInt = Field(4_096, description="most clients whose rate is remembered")
    default_timeout_seconds: PositiveFloat = Field(
        600.0, allow_inf_nan=False, description="time for a request whose client sets no deadline"
    )
    max_timeout_seconds: PositiveFloat = Field(
        3_600.0,
        allow_inf_nan=False,
        description="most time for a request, whatever its client's deadline",
    )
    router_grace_seconds: NonNegativeFloat = Field(
        30.0,
        allow_inf_nan=False,
        description="how long requests, those under way among them, wait for a router when the "
        "last one was lost",
    )
    tokeniser_threads: PositiveInt = Field(2, description="threads that tokenise")
    http_listen: OptionalListenAddress = Field(
        "127.0.0.1:8000", description="address to serve OpenAI's API on, over HTTP; off for none"
    )
    http_quiet_seconds: PositiveFloat = Field(
        5.0,
        allow_inf_nan=False,
        description="after which a stream over HTTP begins without a token, kept by comments",
    )
    http_request_seconds: PositiveFloat = Field(
        60.0,
        allow_inf_nan=False,
        description="time that a client has to send a request over HTTP, and to take an answer in "
        "one piece",
    )
    http_max_connections: PositiveInt = Field(
        1_024, description="most connections over HTTP; one more is closed"
    )
    cors_origin: list[str] = Field(
        [], description="origins whose pages may call over HTTP, in browsers; * for all"
    )
    strict_fields: bool = Field(
        False,
        description="refuse requests over HTTP with fields that nobody knows; else they are named "
        "in a header",
    )
    include_metrics: bool = Field(
        False, description="tell the latency receipt in every answer over HTTP, asked for or not"
    )
    trace_url: str | None = Field(
        None,
        min_length=1,
        description="where traces are shown, http://127.0.0.1:16686 say: responses over HTTP link "
        "to theirs",
    )
    drain_seconds: NonNegativeFloat = Field(
        30.0,
        allow_inf_nan=False,
        description="how long accepted requests may go on when told to stop",
    )

    tokens: Annotated[Path | None, Accessory] = Field(
        None,
        description="file of clients' tokens, as `moesaic tokens add` writes it; a client without "
        "one is refused, with one it needs no certificate; read again when it changes",
    )

    @model_validator(mode="after")
    def _strangers_are_kept_out_of_http(self) -> Self:
        if self.http_listen and self.tls is None and not self.insecure:
            refuse_strangers(self.http_listen)
        return self

    @model_validator(mode="after")
    def _timeouts(self) -> Self:
        if self.default_timeout_seconds > self.max_timeout_seconds:
            raise ValueError(
                f"default_timeout_seconds ({self.default_timeout_seconds:g}) is above "
                f"max_timeout_seconds ({self.max_timeout_seconds:g})"
            )
        return self
