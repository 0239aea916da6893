"""What an operator asks of a router while experts move: who hosts what, changes of it; and what it
sent again.
"""

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence

import grpc

from moesaic.v1 import placement_pb2, placement_pb2_grpc, router_pb2
from services.runtime.channels import open_channel
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles

CALL_SECONDS = 10.0
# A proxy meant for the web knows nothing of this machine's services.
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# As Prometheus has `moesaic.router.retries`.
RETRIES = re.compile(r"^moesaic_router_retries\S*\{.*\} (\S+)", re.MULTILINE)

Key = tuple[int, int]
"""An expert: its layer, its number there."""


class Admin:
    """A connection to a router's administration, and its metrics; services are named by address.
    With `tls` those are an operator's files.
    """

    def __init__(self, address: str, metrics_address: str, tls: TlsFiles | None = None) -> None:
        name = None if tls is None else Role.ROUTER.server_name
        self._channel: grpc.aio.Channel = open_channel(address, tls=tls, server_name=name)
        self._stub = placement_pb2_grpc.PlacementServiceStub(self._channel)
        self._metrics_address = metrics_address

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def placement(self) -> router_pb2.GetPlacementResponse:
        """Who hosts what, as the router sees it."""
        request = router_pb2.GetPlacementRequest()
        response: router_pb2.GetPlacementResponse = await self._stub.GetPlacement(
            request, timeout=CALL_SECONDS
        )
        return response

    async def hosted(self) -> dict[str, set[Key]]:
        """Experts ready on each service, as the router sees it."""
        return {
            service.address: {
                (layer.layer, number) for layer in service.layers for number in layer.experts
            }
            for service in (await self.placement()).services
        }

    async def add(self, addresses: Sequence[str]) -> None:
        """Make services known."""
        request = router_pb2.AddExpertServicesRequest(addresses=addresses)
        await self._stub.AddExpertServices(request, timeout=CALL_SECONDS)

    async def remove(self, addresses: Sequence[str]) -> None:
        """Forget services."""
        request = placement_pb2.RemoveExpertServicesRequest(addresses=addresses)
        await self._stub.RemoveExpertServices(request, timeout=CALL_SECONDS)

    def change(self, target: Mapping[str, Sequence[Key]]) -> grpc.aio.UnaryStreamCall:
        """Begin to host what the target says; the responses tell how far it is."""
        request = router_pb2.ChangePlacementRequest()
        for address, keys in sorted(target.items()):
            service = request.target.services.add(address=address)
            for layer in sorted({layer for layer, _ in keys}):
                service.layers.add(
                    layer=layer, experts=sorted(number for at, number in keys if at == layer)
                )
        return self._stub.ChangePlacement(request)

    def spread_evenly(self) -> grpc.aio.UnaryStreamCall:
        """Begin to give every service its share."""
        return self._stub.ChangePlacement(
            router_pb2.ChangePlacementRequest(even=router_pb2.EvenPlacement())
        )

    def drain(self, address: str) -> grpc.aio.UnaryStreamCall:
        """Begin to empty a service."""
        drain = router_pb2.DrainService(address=address)
        return self._stub.ChangePlacement(router_pb2.ChangePlacementRequest(drain=drain))

    async def num_retries(self) -> int:
        """Frames that the router, since it was started, has sent again; 0 while it is not there."""
        try:
            return int(sum(map(float, RETRIES.findall(await self.metrics()))))
        except urllib.error.URLError:
            return 0

    async def metrics(self) -> str:
        """What the router has measured, in Prometheus's form. Raises URLError while it is not
        there.
        """
        return await asyncio.to_thread(_read, f"http://{self._metrics_address}/metrics")


async def gauge_of(metrics_address: str, name: str) -> float:
    """What a service's gauge shows, by its name as Prometheus has it, over all attributes."""
    text = await asyncio.to_thread(_read, f"http://{metrics_address}/metrics")
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{"))
    )


def _read(url: str) -> str:
    with WITHOUT_PROXY.open(url, timeout=CALL_SECONDS) as response:
        return str(response.read(), "utf-8")
