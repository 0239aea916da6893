"""Settings of the commands that show and change who hosts what, and the fields that they share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from services.runtime.channels import DNS_SCHEME, split_address
from services.wire.errors import InvalidRequest

# One prefix for all, so that MOESAIC_ADMIN_ROUTER serves every one of them.
PREFIX = "MOESAIC_ADMIN_"
JSON_SHORTCUT = {"json-output": "json"}


def _address(address: str) -> str:
    try:
        split_address(address.removeprefix(DNS_SCHEME))
    except InvalidRequest as error:
        raise ValueError(str(error)) from error
    return address


CheckedAddress = Annotated[str, AfterValidator(_address)]
Router = Annotated[CheckedAddress, Field(description="host:port of a running router")]
OperationId = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=64,
        description="name of the operation, else a random one; with that of one under way that one is followed",
    ),
]
Timeout = Annotated[
    PositiveFloat,
    Field(le=86_400, description="seconds to follow the operation, which goes on after that"),
]
Force = Annotated[
    bool, Field(description="go on even where experts are left with fewer replicas than the coverage asked for")
]

DEFAULT_ROUTER = "127.0.0.1:50052"
DEFAULT_TIMEOUT = 3600.0


class ShowSettings(BaseSettings):
    """Show the expert services, and on how many of them each expert is ready."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, cli_shortcuts=JSON_SHORTCUT)

    router: Router = DEFAULT_ROUTER
    json_output: bool = Field(False, description="print one line of JSON instead of tables")


class ExportSettings(BaseSettings):
    """Write the placement in force, as `moesaic placement apply` reads it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    file: CliPositionalArg[Path] = Field(Path("-"), description="file to write; - is stdout")
    router: Router = DEFAULT_ROUTER


class ApplySettings(BaseSettings):
    """Have the services host what a file says, no more and no less.

    Every expert is ready in its new place before it leaves the old one, and serving goes on all the while. Ctrl-C
    leaves the operation to the router, which carries it out.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    file: CliPositionalArg[Path] = Field(description="placement in JSON, as `placement export` writes it; - is stdin")
    force: Force = False
    router: Router = DEFAULT_ROUTER
    operation_id: OperationId = None
    timeout: Timeout = DEFAULT_TIMEOUT


class ListSettings(BaseSettings):
    """Show the expert services that the router knows."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, cli_shortcuts=JSON_SHORTCUT)

    router: Router = DEFAULT_ROUTER
    json_output: bool = Field(False, description="print one line of JSON instead of a table")


class AddSettings(BaseSettings):
    """Make expert services known to a running router, which connects to them and gives them experts."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    addresses: CliPositionalArg[list[CheckedAddress]] = Field(
        min_length=1, description="host:port of a service, or dns:///name:port for every address of a name"
    )
    router: Router = DEFAULT_ROUTER


class DrainSettings(BaseSettings):
    """Empty an expert service, so that it can be stopped: its experts go to the other services first.

    It is given none again until it is started anew. Ctrl-C leaves the operation to the router, which carries it out.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    address: CliPositionalArg[CheckedAddress] = Field(
        description="host:port of the service, as `moesaic experts list` has it"
    )
    force: Force = False
    router: Router = DEFAULT_ROUTER
    operation_id: OperationId = None
    timeout: Timeout = DEFAULT_TIMEOUT


class RebalanceSettings(BaseSettings):
    """Move experts so that the services share them better, while they are being served.

    Ctrl-C leaves the operation to the router, which carries it out.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    even: bool = Field(False, description="every layer evenly over all services, with as few moves as that takes")
    force: Force = False
    router: Router = DEFAULT_ROUTER
    operation_id: OperationId = None
    timeout: Timeout = DEFAULT_TIMEOUT
