"""The expert services together: found, kept connected, given their experts, and laid out as a placement."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from services.model.checkpoint import Checkpoint
from services.router.dispatch import MAX_FRAME_BYTES, Placement
from services.router.expert_peer import Expected, ExpertPeer
from services.router.placement import ExpertKey, Holder, spread_evenly
from services.router.shares import NOBODY
from services.runtime.channels import resolve
from services.wire.errors import BadState, ServingError, Unavailable

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5  # before a name is looked up, or a failed load planned, again


class Fleet:
    """Every expert service that the router was told of. Truth about hosting lives in the services; the fleet watches.

    `place` is called with a new placement whenever hosting changes; the dispatcher uses it from the next layer on.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        addresses: Sequence[str],
        expected: Expected,
        *,
        num_lanes: int,
        frame_floor_seconds: float,
        place: Callable[[Placement], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._changed = asyncio.Event()
        self._laid_out = asyncio.Event()
        self._place = place
        self._complete = asyncio.Event()
        self.peers = [
            ExpertPeer(address, expected, num_lanes, frame_floor_seconds, self._changed.set)
            for address in sorted(set(addresses))
        ]
        self.ready_by_service: Mapping[str, int] = {}  # experts ready on each; none where it is not live
        self.min_live_replicas = 0  # live services that the least replicated expert is ready on
        self._experts: list[ExpertKey] = [
            (layer, expert) for layer in checkpoint.moe_layers for expert in range(checkpoint.num_experts)
        ]

    async def run(self, wait_seconds: float) -> None:
        """Keep the peers connected and every expert hosted, until cancelled.

        Waits up to `wait_seconds` for every service before it distributes experts over those that are there. Raises
        BadState when what is there by then cannot hold the model, cannot read it, or two services claim different
        weights for one expert.
        """
        async with asyncio.TaskGroup() as loops:
            for peer in self.peers:
                loops.create_task(peer.run())
            await self._until_all_are_live(wait_seconds)
            # Apart, so that a service that loads for minutes does not keep the others' changes from being seen.
            loops.create_task(self._keep_laid_out())
            loops.create_task(self._keep_hosted())

    async def complete(self) -> None:
        """Return once every expert is ready somewhere."""
        await self._complete.wait()

    def cancel(self, requests: Sequence[int]) -> None:
        """Tell every service that nobody waits for these requests any more."""
        for peer in self.peers:
            for stream in peer.streams:
                stream.cancel(requests)

    async def _keep_laid_out(self) -> None:
        while True:
            self._changed.clear()
            self._lay_out()
            self._laid_out.set()
            await self._changed.wait()

    async def _keep_hosted(self) -> None:
        while True:
            self._laid_out.clear()
            if not await self._host_missing():
                await self._laid_out.wait()

    async def _until_all_are_live(self, wait_seconds: float) -> None:
        missing: list[str] = []
        try:
            async with asyncio.timeout(wait_seconds):
                while absent := [peer.address for peer in self.peers if not peer.is_live]:
                    if absent != missing:
                        logger.info("waiting for expert services: %s", ", ".join(absent))
                    missing = absent
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            refusals = [str(peer.refusal) for peer in self.peers if peer.refusal is not None]
            if len(missing) == len(self.peers):
                reason = "; ".join(refusals) or f"none of {', '.join(missing)} answered within {wait_seconds:g} s"
                raise BadState(f"no expert service can be used: {reason}") from None
            logger.warning("going on without expert services %s", "; ".join(refusals) or ", ".join(missing))

    def _lay_out(self) -> None:
        """Publish a placement of what is ready now."""
        owners = {
            layer: np.full(self._checkpoint.num_experts, NOBODY, dtype=np.int64)
            for layer in self._checkpoint.moe_layers
        }
        claims: dict[ExpertKey, tuple[str, bytes]] = {}
        replicas: Counter[ExpertKey] = Counter()
        ready = {peer.address: peer.ready_experts() for peer in self.peers}
        for index, peer in enumerate(self.peers):
            for key, content_hash in ready[peer.address].items():
                address, claimed = claims.setdefault(key, (peer.address, content_hash))
                if claimed != content_hash:
                    self._refuse_claim(key, address, peer.address)
                    continue
                replicas[key] += 1
                if owners[key[0]][key[1]] == NOBODY:
                    owners[key[0]][key[1]] = index
        self.ready_by_service = {address: len(experts) for address, experts in ready.items()}
        self.min_live_replicas = min(replicas[key] for key in self._experts)
        frame_limits = [peer.description.max_frame_bytes for peer in self.peers if peer.description is not None]
        self._place(
            Placement(
                owners,
                [peer.streams for peer in self.peers],
                [peer.address for peer in self.peers],
                min([MAX_FRAME_BYTES, *frame_limits]),
            )
        )
        if len(claims) == len(self._experts) and not self._complete.is_set():
            logger.info("every expert is ready: %d on %d services", len(claims), len(self.peers))
            self._complete.set()

    def _refuse_claim(self, key: ExpertKey, first: str, second: str) -> None:
        layer, expert = key
        message = f"{first} and {second} claim different weights for expert {expert} of layer {layer}"
        if not self._complete.is_set():
            raise BadState(message)
        logger.error("%s; the one of %s is not used", message, second)

    async def _host_missing(self) -> bool:
        """Distribute experts that no live service hosts; whether anything was loaded."""
        live = [peer for peer in self.peers if peer.is_live]
        holders = [
            Holder(
                peer.address,
                peer.hosting.free_memory_bytes,
                {(hosted.layer, hosted.expert) for hosted in peer.hosting.experts},
            )
            for peer in live
        ]
        try:
            plan = spread_evenly(self._experts, self._expert_bytes(live), holders) if live else {}
        except BadState as error:
            if not self._complete.is_set():
                raise
            logger.error("experts stay unhosted: %s", error)
            return False
        if not plan:
            return False
        async with asyncio.TaskGroup() as loads:
            for peer in live:
                if peer.address in plan:
                    loads.create_task(self._load(peer, plan[peer.address]))
        return True

    async def _load(self, peer: ExpertPeer, experts: Sequence[ExpertKey]) -> None:
        def progress(num_loaded: int, num_total: int) -> None:
            if num_loaded * 10 // num_total != (num_loaded - 1) * 10 // num_total:
                logger.info("%s loaded %d of %d experts", peer.address, num_loaded, num_total)

        try:
            await peer.load(experts, progress)
        except ServingError as error:
            if isinstance(error, BadState) and not self._complete.is_set():
                raise BadState(f"expert service {peer.address} cannot load its experts: {error}") from error
            logger.warning("loading experts on %s failed: %s", peer.address, error)
            # A planner that lost the race, or a service that is gone, is looked at again; nothing else would help.
            await asyncio.sleep(RETRY_SECONDS)

    def _expert_bytes(self, live: Sequence[ExpertPeer]) -> dict[int, int]:
        description = live[0].description
        assert description is not None, "a live peer has been described"
        return dict(zip(description.moe_layers, description.expert_bytes, strict=True))


async def find_services(targets: Sequence[str], wait_seconds: float) -> list[str]:
    """The addresses behind `targets`.

    A name that is not known yet, or has no address, is looked up again until `wait_seconds` have passed; raises
    Unavailable then.
    """
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        try:
            addresses = [address for target in targets for address in await resolve(target)]
            if not addresses:
                raise Unavailable(f"no address behind {', '.join(targets)}")
        except Unavailable as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            logger.info("%s; trying again", error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return addresses
