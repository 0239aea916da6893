"""What an operator can set on an expert service."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator
from pydantic_settings import SettingsConfigDict

from services.runtime.addresses import ListenAddress
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.runtime.host_port import MAX_PORT
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.settings import Negated
from services.runtime.tls_settings import ServingSettings

# What stands around the rows of a reply: credit, timings, failed pairs.
MESSAGE_MARGIN_BYTES = 1 << 20


class ExpertSettings(ServingSettings):
    """Hosts experts of one model and computes the rows that routers send to them."""

    model_config = SettingsConfigDict(env_prefix="MOESAIC_EXPERT_", frozen=True)

    listen: ListenAddress = Field("127.0.0.1:50053", description="address to serve on")
    dispatch_port: Annotated[int, Field(ge=0, le=MAX_PORT)] = Field(
        0, description="port of the same host for native streams of frames; 0 for any free one"
    )
    model: Path = Field(EMBEDDED_MODEL, description="checkpoint directory to read experts from")
    model_name: str | None = Field(
        None, min_length=1, description="the model's name; unset for the directory's"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="type of weights, and to compute in; auto is the checkpoint's"
    )
    device: str = Field(
        "cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="device to compute on: cpu or cuda:N"
    )
    threads: PositiveInt = Field(
        1, description="threads of a CPU computation, by compiled kernels and by torch alike"
    )
    cores: list[NonNegativeInt] | None = Field(
        None, min_length=1, description="CPU cores to stay on"
    )
    expert_memory: ByteSize | None = Field(
        None,
        description="memory for experts, such as 512MiB or 40GiB; unset for a share of the "
        "device's: three fifths of the host's, or four fifths of a GPU's",
    )
    map_files: Annotated[bool, Negated("read experts into memory of the service's own")] = Field(
        True,
        description="compute with experts where the page cache has them, if their files can be "
        "leased and their pages locked",
    )
    hash_cache: str = Field(
        "~/.cache/moesaic/content-hashes",
        min_length=1,
        description="file that keeps the experts' hashes for the next start; off for none",
    )
    preload: str | None = Field(
        None,
        pattern=r"^(all|\d+/[1-9]\d*)$",
        description="experts to load at start: all, or 0/2 for the first half of each layer's; "
        "unset for none",
    )
    max_waiting_pairs: PositiveInt = Field(
        65_536, description="most (row, expert) pairs that wait; a single frame is always let in"
    )
    max_frame_bytes: Annotated[int, Field(ge=4096, le=MAX_MESSAGE_BYTES - MESSAGE_MARGIN_BYTES)] = (
        Field(8 << 20, description="most bytes of a frame, and of a reply's rows")
    )
    batch_invariant: bool = Field(
        False, description="give a row the same bits in any company, at some cost in speed"
    )
    evacuate_seconds: NonNegativeFloat = Field(
        10.0,
        allow_inf_nan=False,
        description="how long routers may take to move the experts elsewhere when told to stop",
    )
    drain_seconds: NonNegativeFloat = Field(
        10.0,
        allow_inf_nan=False,
        description="how long frames and loads in flight may go on after that",
    )

    @field_validator("cores")
    @classmethod
    def _cores_exist(cls, cores: list[int] | None) -> list[int] | None:
        if cores is None:
            return None
        if not hasattr(os, "sched_getaffinity"):
            raise ValueError("a process cannot be kept on cores on this system")
        usable = os.sched_getaffinity(0)
        if not usable.issuperset(cores):
            raise ValueError(
                f"cores {sorted(set(cores) - usable)} are not among the usable {sorted(usable)}"
            )
        return cores

    @field_validator("preload")
    @classmethod
    def _share_exists(cls, preload: str | None) -> str | None:
        if preload is not None and preload != "all":
            index, _, count = preload.partition("/")
            if int(index) >= int(count):
                raise ValueError(f"the share's index must be below {count}")
        return preload

    def preloaded_of(self, num_experts: int) -> range:
        """Which of a layer's experts to load at start; the shares of all indices are all experts,
        each once.
        """
        if self.preload is None:
            return range(0)
        if self.preload == "all":
            return range(num_experts)
        index, count = (int(part) for part in self.preload.split("/"))
        return range(num_experts * index // count, num_experts * (index + 1) // count)
