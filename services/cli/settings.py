"""Settings of the commands that start a cluster or talk to one."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from services.runtime.settings import Whole

MAX_UINT32 = 2**32 - 1
MAX_UINT64 = 2**64 - 1

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Combine = Literal["exact", "partial"]
WireDtype = Literal["auto", "bfloat16"]


class ServeSettings(BaseSettings):
    """Run a local cluster: one gateway, one router and some expert services, each a process of its own.

    The processes are watched: one that crashes is started again, and the cluster ends when one keeps
    crashing. Ctrl-C lets requests in flight finish and stops everything.
    """

    model_config = SettingsConfigDict(env_prefix="MOESAIC_SERVE_", frozen=True)

    model: Path | None = Field(None, description="checkpoint folder in Hugging Face layout; else the embedded one")
    listen: str = Field("127.0.0.1:50051", description="address on which clients are served")
    experts: PositiveInt = Field(2, le=64, description="number of expert services")
    threads: PositiveInt | None = Field(
        None, description="threads of each process that computes; else the cores are shared out"
    )
    dtype: Dtype = Field("auto", description="element type to compute in; auto is the checkpoint's")
    batch_invariant: bool = Field(False, description="give a request the same bits in any company, more slowly")
    combine: Combine = Field(
        "exact", description="partial has services sum a row's experts first: fewer bytes, bits depend on placement"
    )
    wire_dtype: WireDtype = Field(
        "auto", description="bfloat16 halves the bytes between router and experts of a float32 model, less precisely"
    )
    drain_seconds: float = Field(30.0, ge=0, le=3600, description="time that requests have to finish at the end")
    verbose: bool = Field(False, description="show the services' logs instead of writing them to files")


class GenerateSettings(BaseSettings):
    """Continue a prompt: stream the text to stdout, then print to stderr what it cost.

    Starts a local cluster of its own for it, unless --address names one that is running.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOESAIC_GENERATE_", frozen=True, cli_shortcuts={"json-output": "json"}
    )

    prompt: CliPositionalArg[str] = Field(description="text to continue; - reads it from stdin")
    address: str | None = Field(None, description="host:port of a running gateway")
    model: Path | None = Field(None, description="checkpoint folder of the own cluster; else the embedded one")
    experts: PositiveInt = Field(2, le=64, description="number of expert services of the own cluster")
    threads: PositiveInt | None = Field(
        None, description="threads of each process of the own cluster; else the cores are shared out"
    )
    dtype: Dtype = Field("auto", description="element type that the own cluster computes in")
    batch_invariant: bool = Field(False, description="give the own cluster the same bits in any company")
    combine: Combine = Field("exact", description="partial has the own cluster's services sum a row's experts first")
    wire_dtype: WireDtype = Field("auto", description="bfloat16 has rows of a float32 model travel in half the bytes")
    chat: bool = Field(False, description="send the prompt as a chat message of the user")
    max_new_tokens: PositiveInt | None = Field(None, le=MAX_UINT32, description="most tokens to generate")
    temperature: float | None = Field(
        None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="divides the logits; 0 takes the most likely token",
    )
    top_p: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="keep the likeliest tokens up to this probability"
    )
    top_k: int | None = Field(None, ge=0, le=MAX_UINT32, description="keep the k likeliest tokens; 0 keeps all")
    min_p: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="drop tokens below this share of the likeliest one"
    )
    seed: int | None = Field(None, ge=0, le=MAX_UINT64, description="seed of the draws; else a random one")
    stop: Annotated[list[str], Whole] = Field([], description="end before this text; may be given several times")
    ignore_eos: bool = Field(False, description="go on past end-of-sequence tokens")
    timeout: PositiveFloat = Field(600.0, le=86_400, description="seconds that the request may take")
    json_output: bool = Field(
        False,
        description="end stdout with one line of JSON: text, token_ids, usage, receipt, …",
    )
    verbose: bool = Field(False, description="show the logs of the own cluster's services")
