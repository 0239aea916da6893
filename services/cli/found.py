"""Where a command finds the cluster that nobody named to it: the newest that runs here."""

import sys
from typing import TypeVar

from pydantic_settings import BaseSettings

from services.cli.running import RunningCluster, newest_cluster, running_clusters
from services.cli.settings import ClientSettings, ClusterSettings
from services.runtime.invocation import typed
from services.runtime.tls_settings import TlsSettings

Client = TypeVar("Client", bound=ClientSettings)
Settings = TypeVar("Settings", bound=BaseSettings)

# By which somebody means another cluster than that one, which has no TLS.
MEANT = TlsSettings.model_fields.keys()
OWN = ClusterSettings.model_fields.keys() - {"verbose"}


def with_running_gateway(settings: Client, *others: str) -> Client:
    """With the address of the running cluster, which is shown no token.

    As they are where they name a gateway, or describe a cluster to start: by a setting of
    ClusterSettings or one of these `others`. Which cluster it is goes to stderr.
    """
    found = _with(settings, "address", "gateway", {*MEANT, *OWN, *others}, {"token": None})
    if found is not settings:
        which = typed("moesaic status")
        print(f"asking the cluster at {found.address} ({which} shows it)", file=sys.stderr)
    return found


def with_running_router(settings: Settings) -> Settings:
    """With the router of the running cluster, unless they name one."""
    return _with(settings, "router", "router", {*MEANT}, {})


def with_running_tracing(settings: Settings) -> Settings:
    """With the tracing service of the running cluster as their source, unless they name one."""
    return _with(settings, "source", "tracing", {"file"}, {})


def running_at(address: str) -> RunningCluster | None:
    """The cluster that runs here and has a service there."""
    return next(
        (
            cluster
            for cluster in running_clusters()
            if any(service.address == address for service in cluster.services)
        ),
        None,
    )


def _with(
    settings: Settings, name: str, attribute: str, unless: set[str], update: dict[str, None]
) -> Settings:
    if settings.model_fields_set & {name, *unless}:
        return settings
    cluster = newest_cluster()
    found = getattr(cluster, attribute) if cluster is not None else ""
    return settings.model_copy(update={name: found, **update}) if found else settings
