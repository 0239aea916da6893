"""What an operator can set on a router."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    ByteSize,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from services.runtime.addresses import ListenAddress, ServiceTarget
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.runtime.settings import Negated
from services.runtime.tls_settings import ServingSettings


class RouterSettings(ServingSettings):
    """Runs the model without its experts and sends token rows to the services that host them."""

    model_config = SettingsConfigDict(env_prefix="MOESAIC_ROUTER_", frozen=True)

    listen: ListenAddress = Field("127.0.0.1:50052", description="address to serve on")
    experts: list[ServiceTarget] = Field(
        ["127.0.0.1:50053"],
        min_length=1,
        description="expert services as host:port; dns:///name:port for every address of a name",
    )
    model: Path = Field(EMBEDDED_MODEL, description="checkpoint directory")
    model_name: str | None = Field(
        None, min_length=1, description="the model's name; unset for the directory's"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="type to compute in; auto is the checkpoint's"
    )
    combine: Literal["exact", "partial"] = Field(
        "exact",
        description="who sums a row's experts: exact, the router, so that bits do not depend on "
        "who computed what; "
        "partial, first each service its own, which sends fewer bytes back where a row has "
        "several experts on one",
    )
    wire_dtype: Literal["auto", "bfloat16"] = Field(
        "auto",
        description="type that rows travel in: auto is the one computed in; bfloat16 halves the "
        "bytes of a float32 "
        "model, at the cost of bfloat16's precision, for networks that are slow",
    )
    device: str = Field(
        "cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="device to compute on: cpu or cuda:N"
    )
    threads: PositiveInt = Field(
        1, description="threads of a CPU computation, by compiled kernels and by torch alike"
    )
    max_context: PositiveInt | None = Field(
        None,
        description="most tokens of prompt and continuation together; unset for the model's limit",
    )
    kv_memory: ByteSize = Field(
        ByteSize(1 << 30), description="memory for keys and values, such as 512MiB or 4GiB"
    )
    max_sequences: PositiveInt = Field(64, description="most sequences in flight")
    max_batch_tokens: PositiveInt = Field(
        1024, description="most tokens in one step; longer prompts are computed in chunks"
    )
    default_max_new_tokens: PositiveInt = Field(
        256, description="tokens generated where a request names no limit"
    )
    lanes: Literal["auto"] | Annotated[int, Field(ge=1, le=8)] = Field(
        "auto",
        description="steps in flight at once; auto is one unless more are measured to be better",
    )
    max_lanes: Annotated[int, Field(ge=1, le=8)] = Field(
        4, description="most lanes that auto may choose"
    )
    batch_invariant: bool = Field(
        False, description="give a request the same bits in any company, at some cost in speed"
    )
    capacity_factor: PositiveFloat | None = Field(
        None,
        description="drop pairs beyond ceil(factor x tokens x k / experts) of an expert; unset "
        "drops none",
    )
    trace_detail: Literal["request", "step", "layer"] = Field(
        "step", description="how much of a sampled request is traced where it does not say itself"
    )
    trace_layers_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of the time in which one such request at a time is traced to its "
        "layers, with "
        "trace_detail=step",
    )
    experts_wait_seconds: PositiveFloat = Field(
        60.0,
        allow_inf_nan=False,
        description="how long to wait for all expert services before starting with some",
    )
    coverage: Annotated[int, Field(ge=1, le=8)] = Field(
        1,
        description="expert services that each expert is to be ready on; with 2 the loss of any "
        "one is covered",
    )
    require_coverage: bool = Field(
        False,
        description="refuse to start where memory cannot hold the coverage; else it is reported "
        "by a gauge",
    )
    unserved_seconds: PositiveFloat = Field(
        10.0,
        allow_inf_nan=False,
        description="how long a request waits for an expert that no service can compute while none "
        "that was lost is loaded, before it ends",
    )
    check_experts: Annotated[bool, Negated("trust the experts of services unseen")] = Field(
        True,
        description="compare the experts of services with those of the router's own checkpoint, "
        "which is read for that once, in the background",
    )
    hash_cache: str = Field(
        "~/.cache/moesaic/content-hashes",
        min_length=1,
        description="file that keeps the experts' hashes, the one of expert services; off for none",
    )
    rebalance: Annotated[bool, Negated("leave experts where they are")] = Field(
        True, description="move and replicate experts by itself where the load asks for it"
    )
    rebalance_seconds: PositiveFloat = Field(
        10.0,
        allow_inf_nan=False,
        description="how often it is looked whether moving experts would pay",
    )
    rebalance_steps: PositiveInt = Field(
        1024,
        description="steps of late whose load is planned for, and that a plan is judged by "
        "afterwards",
    )
    rebalance_gain: PositiveFloat = Field(
        0.05,
        lt=1,
        description="share of the experts' time of a step that a plan is to save, or nothing is "
        "moved",
    )
    frame_floor_seconds: PositiveFloat = Field(
        0.2,
        allow_inf_nan=False,
        description="least time that an expert service is given for a frame",
    )
    hedge_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="most copies of late frames that are sent to another service beside the "
        "first, as a share of all frames; 0 for none",
    )
    audit_share: float = Field(
        0.001,
        ge=0,
        le=1,
        description="share of frames that a second service computes too, to find those that "
        "compute wrongly; 0 for none",
    )
    frame_checksums: Annotated[bool, Negated("send frames without a checksum")] = Field(
        True, description="send frames with a checksum, and have replies with one"
    )
    drain_seconds: NonNegativeFloat = Field(
        30.0, allow_inf_nan=False, description="how long sequences may go on when told to stop"
    )

    @model_validator(mode="after")
    def _bits_are_not_promised_in_vain(self) -> Self:
        if self.batch_invariant and self.combine == "partial":
            raise ValueError(
                "batch_invariant and combine=partial exclude each other: with partial sums the "
                "bits depend on which "
                "service computes which expert"
            )
        return self

    @model_validator(mode="after")
    def _every_decode_fits_in_a_step(self) -> Self:
        if self.max_batch_tokens < self.max_sequences:
            raise ValueError(
                f"max_batch_tokens ({self.max_batch_tokens}) is below max_sequences "
                f"({self.max_sequences}): "
                "a step holds a token of every sequence"
            )
        return self
