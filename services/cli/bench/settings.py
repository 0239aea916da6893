"""Settings of `moesaic bench`."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from services.cli.bench.loads import ArrivalProcess, Bounds, ClosedLoop, OfferedLoad, OpenLoop
from services.cli.bench.objectives import read_objectives
from services.cli.sampling_flags import with_sampling_flags
from services.cli.settings import MAX_UINT32, ClientSettings
from services.runtime.host_port import is_loopback
from services.runtime.settings import Accessory
from services.runtime.text_files import Unreadable, read_text
from services.wire.sampling import MAX_SEED

DEFAULT_CONCURRENCY = (1, 4, 16)
DEFAULT_SECONDS = 15.0


def _http_server(url: str) -> str:
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise ValueError("it is no URL such as http://127.0.0.1:8000")
    if split.username is not None or split.query or split.fragment:
        raise ValueError("it is to have host, port and path alone")
    return url.rstrip("/").removesuffix("/v1")


# Without a slash at its end, and without the version.
HttpServer = Annotated[str, AfterValidator(_http_server)]
Rate = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]


@with_sampling_flags
class BenchSettings(ClientSettings):
    """Put load on a cluster and measure it as its clients would: latencies, throughput, refusals,
    cost.

    Closed loop (--concurrency): so many users, each of whom sends the next request when the last
    one has ended. Open loop (--rate): requests arrive at a rate, however fast they are served;
    latencies then count from the moment at which a request was due. Several values are measured one
    after the other and compared.

    Without --gateway it asks the cluster that runs here. Where none runs, or a flag from --model to
    --generation-config describes another, it starts one of its own. Tables go to stdout, progress
    to stderr. Ctrl-C ends it early and shows what there is. The exit code is 1 when any request
    failed, 130 after Ctrl-C.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOESAIC_BENCH_",
        frozen=True,
        cli_shortcuts={"json-output": "json", "address": "gateway"},
    )

    http: HttpServer | None = Field(
        None,
        description="URL of a server with OpenAI's API, such as http://127.0.0.1:8000, to load in "
        "place of a gateway; its key is --token, or in --token-file",
    )
    http_model: str | None = Field(
        None, min_length=1, description="model to ask for there; else the first of its list"
    )
    chat: bool = Field(False, description="send prompts there as chat messages of a user")
    token_file: Annotated[Path | None, Accessory] = Field(
        None, description="file with the token for it, in place of --token"
    )
    concurrency: list[PositiveInt] = Field(
        [],
        description="closed loop: requests at a time, such as 1,4,16 (which is also what an "
        "absent --rate means)",
    )
    rate: list[Rate] = Field([], description="open loop: requests a second, such as 0.5,1,2")
    arrivals: ArrivalProcess = Field(
        "poisson", description="how the requests of an open loop are spaced"
    )
    max_in_flight: PositiveInt = Field(
        512,
        le=100_000,
        description="most requests of an open loop in flight; others wait in the client, counted",
    )
    requests: PositiveInt | None = Field(None, le=10_000_000, description="requests of each load")
    seconds: PositiveFloat | None = Field(
        None,
        le=86_400,
        description="time for new requests of each load; without --requests it is "
        f"{DEFAULT_SECONDS:g}",
    )
    warm_up: NonNegativeInt = Field(
        2, le=100_000, description="requests before each load that no figure counts"
    )
    prompts: Path | None = Field(
        None,
        description='a prompt a line, as text or as {"prompt": …, "max_new_tokens": …}; else '
        "passages of novels",
    )
    prompt_tokens: PositiveInt | None = Field(
        None,
        le=MAX_UINT32,
        description="give every prompt so many tokens, going on with the next prompts' text",
    )
    max_new_tokens: PositiveInt = Field(
        64, le=MAX_UINT32, description="most tokens to generate for a request"
    )
    ignore_eos: bool = Field(
        False, description="go on past end-of-sequence tokens, so that lengths are known"
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        description="seed of Poisson arrivals; a request draws with this plus its number",
    )
    slo: list[str] = Field(
        [], description="objectives for goodput, of ttft, itl, tpot and e2e: ttft=200ms,itl=50ms"
    )
    timeout: PositiveFloat = Field(
        600.0, le=86_400, description="seconds that a request may take from when it is due"
    )
    json_output: Path | None = Field(
        None, description="file for every sample, the settings and the figures"
    )

    @field_validator("slo")
    @classmethod
    def _objectives(cls, slo: list[str]) -> list[str]:
        read_objectives(slo)
        return slo

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.rate and self.concurrency:
            raise ValueError(
                "--rate is an open loop and --concurrency a closed one: give one of them"
            )
        return self

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if self.http is None:
            if self.chat or self.http_model is not None or self.token_file is not None:
                raise ValueError("--chat, --http-model and --token-file go with --http")
        elif self.address is not None:
            raise ValueError("--http is a server and --address another: give one of them")
        elif self.chat and self.prompt_tokens is not None:
            raise ValueError("--prompt-tokens cuts prompts, and --chat sends messages")
        return self

    @model_validator(mode="after")
    def _a_key_is_shown_by_tls(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("--token and --token-file are the same: give one of them")
        url = urlsplit(self.http or "")
        is_shown = self.key is not None and url.scheme == "http" and not self.insecure
        if is_shown and not is_loopback(url.hostname or ""):
            raise ValueError(
                f"others could read the token on its way to {self.http}: take https, or say "
                "--insecure"
            )
        return self

    @property
    def key(self) -> str | None:
        """The token, as a server over HTTP wants to see it; raises ValueError where its file cannot
        be read.
        """
        if self.token_file is None:
            return None if self.token is None else self.token.get_secret_value()
        try:
            return read_text(self.token_file).strip()
        except Unreadable as error:
            raise ValueError(f"the token cannot be read: {error}") from error

    @property
    def loads(self) -> list[OfferedLoad]:
        """The loads to measure, in order."""
        if self.rate:
            return [
                OpenLoop(rate, self.arrivals, self.seed, self.max_in_flight) for rate in self.rate
            ]
        return [ClosedLoop(concurrency) for concurrency in self.concurrency or DEFAULT_CONCURRENCY]

    @property
    def bounds(self) -> Bounds:
        """When each of them ends."""
        seconds = (
            DEFAULT_SECONDS if self.requests is None and self.seconds is None else self.seconds
        )
        return Bounds(self.requests, seconds)
