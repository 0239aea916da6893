"""Settings of the commands about routing."""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from services.cli.hosting.settings import DEFAULT_TIMEOUT, PREFIX, RouterAsked
from services.cli.settings import MAX_UINT32

DEFAULT_STEPS = 1000


class RecordSettings(RouterAsked):
    """Write down which experts the gates choose for the traffic that a router serves meanwhile.

    The file has no text and no weights: expert ids alone, by layer and token, step by step. `python
    -m bench.placement --recording FILE` replays it to any strategy, number of services and memory.
    Nothing is recorded while nothing is served. Ctrl-C ends it early and keeps what has come.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    file: CliPositionalArg[Path] = Field(description="file to write, .npz as numpy reads it")
    steps: PositiveInt = Field(DEFAULT_STEPS, le=MAX_UINT32, description="steps to record")
    topic: str | None = Field(None, description="what the traffic is about; else the file's name")
    overwrite: bool = Field(False, description="replace the file if there is one")
    timeout: PositiveFloat = Field(
        DEFAULT_TIMEOUT,
        le=86_400,
        description="seconds to wait for the steps; what has come by then is kept",
    )
