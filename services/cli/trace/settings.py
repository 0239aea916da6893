"""What `moesaic trace` can be asked."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from services.cli.ports import TRACING, TRACING_PORT
from services.runtime.host_port import split_host_port, with_port
from services.runtime.settings import OnePerFlag


class TraceSettings(BaseSettings):
    """Show a trace: the way of a request through gateway, router and experts, and where its time
    went.

    It is read from the tracing service, from Jaeger or from a file. Without an id it is the latest
    one.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOESAIC_TRACE_", frozen=True, cli_shortcuts={"source": "from"}
    )

    trace_id: CliPositionalArg[str | None] = Field(
        None, description="trace to show, 32 hexadecimal digits"
    )
    last: bool = Field(False, description="show the latest trace, as without an id")
    where: Annotated[list[str], OnePerFlag] = Field(
        [],
        description="latest trace with a span of this attribute, KEY=VALUE; may be given several "
        "times",
    )
    service: str = Field(
        "gateway", min_length=1, description="service that the latest trace is to have a span of"
    )
    source: str = Field(
        f"http://{TRACING}",
        description="URL or host:port of the tracing service or Jaeger to ask; else that of the "
        "cluster which `moesaic serve` runs",
    )
    file: Path | None = Field(None, description="read Jaeger's JSON from this file instead")
    format: Literal["waterfall", "jaeger", "chrome"] = Field(
        "waterfall",
        description="waterfall is for the terminal, jaeger for its upload, chrome for Perfetto",
    )
    output: Path | None = Field(None, description="write to this file instead of stdout")
    step: NonNegativeInt | None = Field(
        None, description="step to show in detail, from 0; else the slowest"
    )
    layer: NonNegativeInt | None = Field(
        None, description="layer to show in detail, from 0; else the slowest"
    )
    timeout: PositiveFloat = Field(30.0, le=3_600, description="seconds that asking may take")
    verbose: bool = Field(False, description="say what libraries say of a source that is not there")

    @field_validator("source")
    @classmethod
    def _url(cls, source: str) -> str:
        if "://" not in source:
            source = f"http://{with_port(source, TRACING_PORT)}"
        parts = urlsplit(source)
        if parts.scheme not in ("http", "https"):
            raise ValueError("it must begin with http:// or https://")
        if parts.query or parts.fragment or any(character.isspace() for character in source):
            raise ValueError(
                "it should be http://host:port, and what stands before /api in its path"
            )
        host = parts.netloc.rpartition("@")[2]
        has_port = ":" in host.rpartition("]")[2]
        split_host_port(host if has_port else f"{host}:80")
        return source.rstrip("/")

    @field_validator("where")
    @classmethod
    def _pairs(cls, where: list[str]) -> list[str]:
        for pair in where:
            key, equals, _ = pair.partition("=")
            if not key or not equals:
                raise ValueError(f"{pair!r} is not of the form KEY=VALUE")
        return where

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.trace_id and (self.last or self.where):
            raise ValueError("a trace's id goes with neither --last nor --where")
        if self.file is not None and self.where:
            raise ValueError("--where is for a search, not for --file")
        return self
