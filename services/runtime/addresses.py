"""The types of settings that are addresses: checked where they are read, before
anybody is asked.
"""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from services.runtime.host_port import split_host_port, with_port

# Before a name that is looked up and stands for each of its addresses.
DNS_SCHEME = "dns:///"
# What says that a port is not to be opened; an empty variable is as none.
NOWHERE = ("", "off")


def usual_port(port: int) -> BeforeValidator:
    """Gives an address this port where it has none: `Annotated[ServiceTarget, usual_port(1)]`."""

    def complete(address: object) -> object:
        if not isinstance(address, str):
            return address
        bare = address.removeprefix(DNS_SCHEME)
        return address[: len(address) - len(bare)] + with_port(bare, port)

    return BeforeValidator(complete)


def _to_listen_on(address: str) -> str:
    split_host_port(address, lowest_port=0)
    return address


def _to_listen_on_or_not(address: str) -> str:
    return "" if address in NOWHERE else _to_listen_on(address)


def _of_one_service(address: str) -> str:
    split_host_port(address)
    return address


def _of_services(target: str) -> str:
    split_host_port(target.removeprefix(DNS_SCHEME))
    return target


# host:port, where port 0 is any free one.
ListenAddress = Annotated[str, AfterValidator(_to_listen_on)]
# As that, or empty for no port at all.
OptionalListenAddress = Annotated[str, AfterValidator(_to_listen_on_or_not)]
# host:port of one service.
ServiceAddress = Annotated[str, AfterValidator(_of_one_service)]
# host:port, or dns:///name:port for whatever the name stands for.
ServiceTarget = Annotated[str, AfterValidator(_of_services)]
