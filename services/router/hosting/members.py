"""Who belongs to the cluster: services by address, by a name that is looked up again and again, or
made known later.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import chain

from services.router.hosting.waits import WAITS, Waits
from services.router.peers.peer import ExpertPeer
from services.runtime.addresses import DNS_SCHEME
from services.runtime.channels import resolve
from services.wire.errors import BadState, NotFound, Overloaded, Unavailable
from services.wire.quoting import quoted

logger = logging.getLogger(__name__)

# Each is connected to, and gone through whenever hosting changes.
MAX_SERVICES = 256

Resolve = Callable[[str], Awaitable[list[str]]]


class Members:
    """Keeps a peer for every address behind the targets; a target is host:port, or
    dns:///name:port.

    A service whose address no name stands for any more stays for as long as it is connected: it may
    be draining. `on_change` is called when one comes or goes.
    """

    def __init__(
        self,
        targets: Sequence[str],
        make_peer: Callable[[str], ExpertPeer],
        on_change: Callable[[], None],
        *,
        look_up: Resolve = resolve,
        waits: Waits = WAITS,
    ) -> None:
        self.peers: Sequence[ExpertPeer] = ()  # by address
        self._make_peer = make_peer
        self._on_change = on_change
        self._look_up = look_up
        self._waits = waits
        self._behind: dict[str, Sequence[str]] = dict.fromkeys(targets, ())  # addresses by target
        self._excess = ""  # of a name, as the log has it
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._loops: asyncio.TaskGroup | None = None

    def peer(self, address: str) -> ExpertPeer | None:
        """The service at an address, if it is known."""
        return next((peer for peer in self.peers if peer.address == address), None)

    async def find(self, wait_seconds: float) -> None:
        """Look the targets up.

        A name that is not known yet, or has no address, is looked up again until `wait_seconds`
        have passed; raises Unavailable then. Raises Overloaded where they stand for too many.
        """
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            try:
                behind = await self._addresses_behind(tuple(self._behind))
                self._check_number(_num_addresses(behind))
                self._behind = behind
            except Unavailable as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                logger.info("%s; trying again", error)
                await asyncio.sleep(self._waits.unknown_name_seconds)
            else:
                return

    async def run(self) -> None:
        """Keep the services connected and the names looked up, until cancelled."""
        async with asyncio.TaskGroup() as self._loops:
            self._update()
            while True:
                await asyncio.sleep(self._waits.look_up_seconds)
                for target in [target for target in self._behind if target.startswith(DNS_SCHEME)]:
                    await self._look_up_again(target)
                self._update()

    async def add(self, targets: Sequence[str]) -> None:
        """Make services known. Raises InvalidRequest for what is no address, Unavailable for a name
        without any, Overloaded where they would be too many.
        """
        self._check_number(len({*self._behind, *targets}))
        added = await self._addresses_behind(targets)
        behind = self._behind | added  # with what others added or removed meanwhile
        self._check_number(_num_addresses(behind))
        self._behind = behind
        self._update()

    def remove(self, targets: Sequence[str]) -> None:
        """Forget services, as they were made known.

        Raises NotFound for one that was not, and BadState where one hosts experts, or none would be
        left.
        """
        for target in targets:
            if target not in self._behind:
                raise NotFound(f"{quoted(target)} is not among the services that were made known")
        staying = {name: self._behind[name] for name in self._behind if name not in targets}
        if not staying:
            raise BadState("no expert service would be left; add another one first")
        wanted = set(chain.from_iterable(staying.values()))
        leaving = [
            peer
            for target in targets
            for peer in map(self.peer, self._behind[target])
            if peer is not None and peer.address not in wanted
        ]
        for peer in leaving:
            if peer.is_live and peer.ready:
                raise BadState(
                    f"expert service {peer.address} hosts experts; drain it before it is removed"
                )
        self._behind = staying
        self._update({peer.address for peer in leaving})

    async def _addresses_behind(self, targets: Sequence[str]) -> dict[str, Sequence[str]]:
        behind: dict[str, Sequence[str]] = {}
        for target in targets:
            behind[target] = await self._look_up(target)
            if not behind[target]:
                raise Unavailable(f"no address behind {target}")
        return behind

    async def _look_up_again(self, target: str) -> None:
        """Where that cannot be, what was known holds on."""
        try:
            found = await self._look_up(target)
            if target not in self._behind:  # it was removed meanwhile
                return
            behind = self._behind | {target: found}
            self._check_number(_num_addresses(behind))
        except Unavailable as error:
            logger.debug("%s", error)
        except Overloaded as error:
            if str(error) != self._excess:
                logger.warning("%s stands for too many addresses: %s", target, error)
            self._excess = str(error)
        else:
            self._behind, self._excess = behind, ""

    def _check_number(self, num_services: int) -> None:
        if num_services > MAX_SERVICES:
            raise Overloaded(
                f"{num_services} expert services would be known; the limit is {MAX_SERVICES}"
            )

    def _update(self, leaving: Collection[str] = ()) -> None:
        assert self._loops is not None, "members are kept while `run` runs"
        wanted = set(chain.from_iterable(self._behind.values()))
        staying = [
            peer
            for peer in self.peers
            if peer.address in wanted or (peer.is_live and peer.address not in leaving)
        ]
        new = [
            self._make_peer(address)
            for address in sorted(wanted - {peer.address for peer in self.peers})
        ]
        gone = {peer.address for peer in self.peers} - {peer.address for peer in staying}
        if not new and not gone:
            return
        self.peers = sorted([*staying, *new], key=lambda peer: peer.address)
        for address in gone:
            logger.info("expert service %s left: no name stands for it any more", address)
            self._runs.pop(address).cancel()
        for peer in new:
            self._runs[peer.address] = self._loops.create_task(peer.run())
        self._on_change()


def _num_addresses(behind: Mapping[str, Sequence[str]]) -> int:
    return len({*chain.from_iterable(behind.values())})
