"""What a command says of a call that failed: the service's own words, or, where none was reached,
why and what to do next.
"""

import asyncio

import grpc

from services.cli.running import RunningCluster, newest_cluster
from services.cli.unreachable import connecting_fails, host_port_of, why_unreachable
from services.runtime.addresses import DNS_SCHEME
from services.runtime.host_port import is_loopback, split_host_port
from services.runtime.invocation import typed
from services.wire.errors import from_rpc

# As gRPC's library begins what it says where there was no connection.
NO_CONNECTION = ("failed to connect to all addresses", "connections to all backends failing")


async def words_of(
    error: grpc.aio.AioRpcError, service: str, address: str, *, verbose: bool = False
) -> str:
    """Of a call to a `gateway` or `router` at the address; with `verbose` the library's words
    follow ours.
    """
    where = f" (router {address})" if service == "router" else ""
    said = f"{error.code().name}: {from_rpc(error)}{where}"
    place = address.removeprefix(DNS_SCHEME)
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return said
    is_connected = not (error.details() or "").startswith(NO_CONNECTION)
    if is_connected and await asyncio.to_thread(connecting_fails, place) is None:
        return said  # the service's own words, which is there
    return await unreachable(service, place, said, verbose=verbose)


async def unreachable(service: str, address: str, said: str, *, verbose: bool = False) -> str:
    """Why nothing came of calling a service at host:port or a URL, where `said` is the library's
    word for it.
    """
    place = host_port_of(address)
    error = await asyncio.to_thread(connecting_fails, place)
    if error is None:
        sentence = (
            f"somebody listens on {place}, and not as this command calls it: it may want TLS "
            "(--tls-authority), or be another service"
        )
    else:
        sentence = f"{why_unreachable(place, error)}. {next_step(service, place, newest_cluster())}"
    return f"{sentence} ({said})" if verbose else sentence


def next_step(service: str, place: str, cluster: RunningCluster | None) -> str:
    """What whoever found nobody there can do."""
    if not is_loopback(split_host_port(place)[0]):
        return "Is the service up, and the address right?"
    start = typed("moesaic serve --tracing" if service == "tracing" else "moesaic serve")
    if cluster is None:
        return f"Start a cluster: {start}"
    if not (found := getattr(cluster, service)):
        return f"The cluster that runs here has none; start one that has: {start}"
    if host_port_of(found) == place:
        return f"See how its cluster is: {typed('moesaic status')}"
    return f"The cluster that runs here has its {service} at {found}"
