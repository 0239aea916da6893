"""Settings of the commands that start a cluster or talk to one, and the fields that they share."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, PositiveFloat, PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from services.cli.ports import GATEWAY, GATEWAY_PORT, HTTP, TRACING
from services.cli.receipt_flag import ReceiptFlag
from services.cli.result_flags import ResultFlags
from services.cli.sampling_flags import with_sampling_flags
from services.runtime.addresses import (
    DNS_SCHEME,
    ListenAddress,
    OptionalListenAddress,
    ServiceTarget,
    usual_port,
)
from services.runtime.host_port import is_loopback, split_host_port
from services.runtime.settings import Accessory, Negated, OnePerFlag
from services.runtime.tls_files import Authority, TlsFiles
from services.runtime.tls_settings import CallingSettings, refuse_strangers

MAX_UINT32 = 2**32 - 1

Gateway = Annotated[ServiceTarget, usual_port(GATEWAY_PORT)]
Address = Annotated[
    Gateway | None,
    Field(
        description="host:port of a gateway; else that of the cluster which `moesaic serve` runs"
    ),
]

# What a local cluster is to be.
Model = Annotated[
    Path | None,
    Field(description="checkpoint folder in Hugging Face layout; else the embedded one"),
]
Experts = Annotated[PositiveInt, Field(le=64, description="number of expert services")]
Routers = Annotated[
    PositiveInt,
    Field(
        le=16, description="number of routers, which share the experts; with 2 any one may be lost"
    ),
]
Coverage = Annotated[
    PositiveInt,
    Field(le=8, description="expert services that host each expert; with 2 any one may be lost"),
]
Threads = Annotated[
    PositiveInt | None,
    Field(
        description="threads with which the router and each expert service compute; else the "
        "router of all but small models has one for every core, and the expert services share the "
        "cores"
    ),
]
ExpertMemory = Annotated[
    ByteSize | None,
    Field(
        description="most memory for the experts of one service, such as 8GiB, taken as experts "
        "come; else three fifths of the machine's, so that one service can take over for others"
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    Field(description="element type to compute in; auto is the checkpoint's"),
]
BatchInvariant = Annotated[
    bool, Field(description="give a request the same bits in any company, more slowly")
]
CombineOption = Annotated[
    Literal["exact", "partial"],
    Field(
        description="partial has services sum a row's experts first: fewer bytes, bits depend on "
        "placement"
    ),
]
WireDtype = Annotated[
    Literal["auto", "bfloat16"],
    Field(
        description="bfloat16 halves the bytes between router and experts of a float32 model, "
        "less precisely"
    ),
]
GenerationConfig = Annotated[
    Literal["auto", "ignore"],
    Field(
        description="ignore takes nothing but stop tokens from the checkpoint's "
        "generation_config.json"
    ),
]
Rebalance = Annotated[
    bool,
    Field(description="move and replicate experts by themselves where the load asks for it"),
    Negated("leave experts where they are, whatever the load"),
]
TracingOption = Annotated[
    bool, Field(description="run a tracing service too, a stand-in for Jaeger, and export to it")
]
Verbose = Annotated[
    bool, Field(description="show the services' logs instead of writing them to files")
]


class ClusterSettings(BaseSettings):
    """What the local cluster is to be that a command starts."""

    model: Model = None
    experts: Experts = 2
    routers: Routers = 1
    coverage: Coverage = 1
    threads: Threads = None
    expert_memory: ExpertMemory = None
    dtype: Dtype = "auto"
    batch_invariant: BatchInvariant = False
    combine: CombineOption = "exact"
    wire_dtype: WireDtype = "auto"
    rebalance: Rebalance = True
    generation_config: GenerationConfig = "auto"
    verbose: Verbose = False


class ClientSettings(ClusterSettings, CallingSettings):
    """Where the cluster is that a command talks to; without an address that is the one which runs
    here, or one of its own, and neither needs to be shown anything.
    """

    address: Address = None
    token: Annotated[SecretStr | None, Accessory] = Field(
        None,
        description="token that the gateway knows; a variable is not seen by others, as flags are",
    )
    insecure: Annotated[bool, Accessory] = Field(
        False, description="show the token without TLS to an address that is not the loopback one"
    )

    @property
    def gateway_trust(self) -> TlsFiles | Authority | None:
        """The files by which the gateway is trusted; None where there is no TLS."""
        return None if self.address is None else self.trust

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        if self.token is None or self.address is None:
            return ()
        return (("authorization", f"Bearer {self.token.get_secret_value()}"),)

    @model_validator(mode="after")
    def _a_token_is_shown_by_tls(self) -> Self:
        if self.metadata and self.trust is None and not self.insecure:
            host, _ = split_host_port((self.address or "").removeprefix(DNS_SCHEME))
            if not is_loopback(host):
                raise ValueError(
                    f"others could read the token on its way to {self.address}: give "
                    "--tls-authority, or say --insecure"
                )
        return self


class ServeSettings(ClusterSettings):
    """Run a local cluster: one gateway, a router or several, and some expert services, each a
    process of its own.

    The processes are watched: one that crashes is started again, and the cluster ends when one
    keeps crashing. Ctrl-C lets requests in flight finish and stops everything.
    """

    model_config = SettingsConfigDict(env_prefix="MOESAIC_SERVE_", frozen=True)

    listen: ListenAddress = Field(
        GATEWAY,
        description="address on which clients are served; where it is not said and taken, the next "
        "free port",
    )
    http_listen: OptionalListenAddress = Field(
        HTTP,
        description="address on which clients are served OpenAI's API over HTTP, or the next free "
        "port where that one is taken; off for none",
    )
    metrics_aliases: Literal["vllm"] | None = Field(
        None, description="name the gateway's metrics of requests as vLLM does, too"
    )
    drain_seconds: float = Field(
        30.0, ge=0, le=3600, description="time that requests have to finish at the end"
    )
    tracing: TracingOption = False
    tracing_http: ListenAddress = Field(
        TRACING, description="address on which the tracing service shows traces"
    )
    trace_detail: Literal["request", "step", "layer"] = Field(
        "layer", description="with --tracing, how much of a request is traced"
    )
    insecure: bool = Field(
        False,
        description="serve whoever reaches an address that is not the loopback one, without TLS",
    )

    @model_validator(mode="after")
    def _strangers_are_kept_out(self) -> Self:
        if not self.insecure:
            refuse_strangers(self.listen)
            if self.http_listen:
                refuse_strangers(self.http_listen)
            if self.tracing:
                refuse_strangers(self.tracing_http)
        return self


@with_sampling_flags
class GenerateSettings(ReceiptFlag, ResultFlags, ClientSettings):
    """Continue a prompt: stream the text to stdout, then print to stderr what it cost.

    On a terminal the prompt is shown before its continuation, and no word is broken.
    A file or a pipe gets the continuation alone, as it comes.

    Without --address it asks the cluster that runs here. Where none runs, or a flag from --model to
    --generation-config describes another, it starts one of its own. With --tracing that is traced,
    and the trace printed too.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOESAIC_GENERATE_", frozen=True, cli_shortcuts={"json-output": "json"}
    )

    other_addresses: list[Gateway] = Field(
        [],
        description="host:port of further gateways, to go on at when the one at --address is lost",
    )
    prompt: CliPositionalArg[str] = Field(description="text to continue; - reads it from stdin")
    chat: bool = Field(False, description="send the prompt as a chat message of the user")
    tools: Path | None = Field(
        None, description="file with tools that a chat may call, a JSON list as OpenAI's API has it"
    )
    documents: Path | None = Field(
        None, description="file with documents for a chat, a JSON list of objects"
    )
    template_arguments: str | None = Field(
        None,
        description='further variables of the chat\'s template, JSON such as {"enable_thinking": '
        "false}",
    )
    max_new_tokens: PositiveInt | None = Field(
        None, le=MAX_UINT32, description="most tokens to generate"
    )
    stop: Annotated[list[str], OnePerFlag] = Field(
        [], description="end before this text; may be given several times"
    )
    ignore_eos: bool = Field(False, description="go on past end-of-sequence tokens")
    timeout: PositiveFloat = Field(
        600.0, le=86_400, description="seconds that the request may take"
    )
    json_output: bool = Field(
        False,
        description="print a line of JSON in place of the text: text, token_ids, usage, receipt, …",
    )
    tracing: TracingOption = False

    @model_validator(mode="after")
    def _what_goes_with_a_chat(self) -> Self:
        if not self.chat and (self.tools or self.documents or self.template_arguments):
            raise ValueError("--tools, --documents and --template-arguments go with --chat")
        return self
