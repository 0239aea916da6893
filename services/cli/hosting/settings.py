"""Settings of the commands that show and change who hosts what, and the fields that they share."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from moesaic.v1 import router_pb2
from services.cli.ports import EXPERT_PORT, ROUTER, ROUTER_PORT
from services.runtime.addresses import ServiceAddress, ServiceTarget, usual_port
from services.runtime.tls_settings import TlsSettings

# One prefix for all, so that MOESAIC_ADMIN_ROUTER serves every one of them.
PREFIX = "MOESAIC_ADMIN_"
QUESTION = SettingsConfigDict(env_prefix=PREFIX, frozen=True, cli_shortcuts={"json-output": "json"})


Experts = Annotated[ServiceTarget, usual_port(EXPERT_PORT)]
Router = Annotated[
    ServiceTarget,
    usual_port(ROUTER_PORT),
    Field(description="host:port of a router; else that of the cluster which `moesaic serve` runs"),
]
OperationId = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=64,
        description="name of the operation, else a random one; with that of one under way that "
        "one is followed",
    ),
]
Timeout = Annotated[
    PositiveFloat,
    Field(le=86_400, description="seconds to follow the operation, which goes on after that"),
]
Force = Annotated[
    bool,
    Field(
        description="go on even where experts are left with fewer replicas than the coverage "
        "asked for"
    ),
]

JsonOutput = Annotated[bool, Field(description="print one line of JSON instead of tables")]
StrategyOption = Annotated[
    Literal["balanced", "eplb"],
    Field(
        description="balanced: soonest done by the services' measured times, with few moves; "
        "eplb: even numbers of "
        "tokens, however many moves that takes"
    ),
]
STRATEGIES = {
    "balanced": router_pb2.PLAN_STRATEGY_BALANCED,
    "eplb": router_pb2.PLAN_STRATEGY_EPLB,
}

DEFAULT_TIMEOUT = 3600.0


class RouterAsked(TlsSettings):
    """Which router a command talks to."""

    router: Router = ROUTER
    verbose: bool = Field(False, description="say what libraries say of a router that is not there")


class ShowSettings(RouterAsked):
    """Show the expert services, and on how many of them each expert is ready."""

    model_config = QUESTION

    json_output: JsonOutput = False


class PlanSettings(RouterAsked):
    """Say what would be moved for the load of late, what that is expected to bring, and why;
    nothing is moved.

    The router plans with what it has seen of the routing of late and with the times that the
    services have taken. It rebalances by itself, unless it is told not to; what became of that is
    said too.
    """

    model_config = QUESTION

    strategy: StrategyOption = "balanced"
    file: Path | None = Field(
        None, description="judge this placement, in JSON, instead of planning one; - is stdin"
    )
    output: Path | None = Field(
        None,
        description="write the placement, as `placement apply` reads it; - is stdout, instead of "
        "the explanation",
    )
    json_output: JsonOutput = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.file is not None and "strategy" in self.model_fields_set:
            raise ValueError(
                "--file gives a placement to judge and --strategy plans one: give one of them"
            )
        return self


class ExportSettings(RouterAsked):
    """Write the placement in force, as `moesaic placement apply` reads it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    file: CliPositionalArg[Path] = Field(Path("-"), description="file to write; - is stdout")


class ApplySettings(RouterAsked):
    """Have the services host what a file says, no more and no less.

    Every expert is ready in its new place before it leaves the old one, and serving goes on all the
    while. Ctrl-C leaves the operation to the router, which carries it out.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    file: CliPositionalArg[Path] = Field(
        description="placement in JSON, as `placement export` writes it; - is stdin"
    )
    force: Force = False
    operation_id: OperationId = None
    timeout: Timeout = DEFAULT_TIMEOUT


class ListSettings(RouterAsked):
    """Show the expert services that the router knows."""

    model_config = QUESTION

    json_output: JsonOutput = False


class RemoveSettings(RouterAsked):
    """Make a running router forget expert services that host nothing."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    addresses: CliPositionalArg[list[Experts]] = Field(
        min_length=1, description="services as they were made known to the router"
    )


class AddSettings(RouterAsked):
    """Make expert services known to a running router, which connects to them and gives them
    experts.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    addresses: CliPositionalArg[list[Experts]] = Field(
        min_length=1,
        description="host:port of a service, or dns:///name:port for every address of a name",
    )
    unseen: bool = Field(False, description="add services that do not listen yet, too")


class DrainSettings(RouterAsked):
    """Empty an expert service, so that it can be stopped: its experts go to the other services
    first.

    It is given none again until it is started anew. Ctrl-C leaves the operation to the router,
    which carries it out.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    address: CliPositionalArg[Annotated[ServiceAddress, usual_port(EXPERT_PORT)]] = Field(
        description="host:port of the service, as `moesaic experts list` has it"
    )
    force: Force = False
    operation_id: OperationId = None
    timeout: Timeout = DEFAULT_TIMEOUT


class RebalanceSettings(RouterAsked):
    """Move experts so that the services share their work better, while they are being served.

    The router plans for the load of late, says what it expects of the plan, and carries it out;
    where nothing is to be gained it says so. `moesaic placement plan` tells more and moves nothing.
    Ctrl-C leaves the operation to the router, which carries it out.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    strategy: StrategyOption = "balanced"
    even: bool = Field(
        False,
        description="whatever the load: every layer evenly over all services, with as few moves "
        "as that takes",
    )
    force: Force = False
    operation_id: OperationId = None
    timeout: Timeout = DEFAULT_TIMEOUT

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.even and "strategy" in self.model_fields_set:
            raise ValueError(
                "--even asks nothing of the load and --strategy plans for it: give one of them"
            )
        return self
