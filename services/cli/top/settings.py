"""What `moesaic top` can be told."""

from pydantic import Field, PositiveFloat

from services.cli.hosting.settings import QUESTION, RouterAsked
from services.runtime.addresses import ServiceTarget


class TopSettings(RouterAsked):
    """Show what a cluster does: tokens a second, waiting, times, services, experts, moves.

    Rates are those of the last interval. Ctrl-C ends it.
    """

    model_config = QUESTION

    other_routers: list[ServiceTarget] = Field(
        [], description="host:port of further routers of the cluster, whose work is added"
    )
    http: ServiceTarget | None = Field(
        None,
        description="host:port of a gateway's HTTP, which tells of waiting requests and times to "
        "the first token; else that of the cluster which `moesaic serve` runs",
    )
    interval: PositiveFloat = Field(2.0, ge=0.1, le=3_600, description="seconds between two looks")
    once: bool = Field(False, description="print one picture, after one interval, and end")
    json_output: bool = Field(
        False, description="print a line of JSON for each look instead of the picture"
    )
