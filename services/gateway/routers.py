"""All routers of a gateway: finds them, keeps a link to each, and knows what they can
do together.
"""

import asyncio
import logging
from collections.abc import Sequence as Sequenced
from contextlib import suppress
from dataclasses import dataclass

from opentelemetry import metrics

from moesaic.v1 import router_pb2 as pb
from services.gateway.micro_batcher import MicroBatcher
from services.gateway.router_link import RouterLink
from services.gateway.sequence import Sequence
from services.runtime.channels import RESOLVE_SECONDS, resolve
from services.runtime.tls_files import TlsFiles
from services.wire.errors import BadState, ServingError, Unavailable
from services.wire.quoting import quoted

logger = logging.getLogger(__name__)

ROUTERS = "moesaic.gateway.routers"

_routers = metrics.get_meter(__name__).create_up_down_counter(
    ROUTERS, unit="{router}", description="routers that can be used"
)


@dataclass(frozen=True)
class RouterLimits:
    """What every router that is up can do."""

    max_context: int
    default_max_new_tokens: int


class Routers:
    """A link for each address that the targets stand for; they are looked up again every few
    seconds.

    `reachable` is set while a router is up, and for `grace_seconds` after the last one was lost;
    `unreachable` is set otherwise. When the grace is over everything that waits fails with
    UNAVAILABLE, or as the router that came back was refused: one of another `tokenizer_digest`,
    say, which is empty where the gateway's files do not tell.
    """

    def __init__(
        self,
        targets: Sequenced[str],
        dispatcher: MicroBatcher,
        *,
        vocab_size: int,
        grace_seconds: float,
        tokenizer_digest: str = "",
        tls: TlsFiles | None = None,
    ) -> None:
        self._targets = targets
        self._tls = tls
        self._dispatcher = dispatcher
        self._vocab_size = vocab_size
        self._tokenizer_digest = tokenizer_digest
        self._grace_seconds = grace_seconds
        self._wanted: frozenset[str] = frozenset()
        self._to_renew: set[str] = set()
        self._something_to_renew = asyncio.Event()
        self._up: set[RouterLink] = set()
        self._description = pb.RouterServiceDescribeResponse()
        self._grace: asyncio.TimerHandle | None = None
        self._refusal: BadState | None = None  # of the first router that was heard of
        self._latest_refusal: BadState | None = None  # since a router came up
        self._heard_of_one = asyncio.Event()
        self.reachable = asyncio.Event()
        self.unreachable = asyncio.Event()
        self.unreachable.set()

    @property
    def num_up(self) -> int:
        """Routers that can be used now."""
        return len(self._up)

    @property
    def num_sequences(self) -> int:
        """Sequences that routers have; any thread may ask."""
        return sum(link.num_sequences for link in (*self._up,))

    @property
    def kv_usage(self) -> float:
        """The share of the routers' KV cache that is reserved; 0 without routers. Any thread may
        ask.
        """
        links = (*self._up,)
        total = sum(link.description.kv_tokens for link in links)
        free = sum(link.free_kv_tokens for link in links)
        return 1 - free / total if total else 0.0

    @property
    def description(self) -> pb.RouterServiceDescribeResponse:
        """Of the router that came up last; raises Unavailable while none can be reached."""
        self.check_reachable()
        return self._description

    @property
    def fingerprint(self) -> str:
        """What the outputs' bits hold for, as the routers say."""
        return self._description.numerics_fingerprint

    def check_reachable(self) -> None:
        """Raises Unavailable while no router can be reached, and BadState where one can that is
        refused.
        """
        if not self.reachable.is_set():
            raise self._unreachable("no router can be reached", retry_after_seconds=RESOLVE_SECONDS)

    @property
    def limits(self) -> RouterLimits:
        """What fits in every router that is up; raises Unavailable while none can be reached."""
        descriptions = [link.description for link in self._up] or [self.description]
        return RouterLimits(
            max_context=min(min(each.max_context, each.kv_tokens) for each in descriptions),
            default_max_new_tokens=min(each.default_max_new_tokens for each in descriptions),
        )

    async def run(self) -> None:
        """Keep the links until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                links: dict[str, asyncio.Task[None]] = {}
                while True:
                    self._wanted = await self._look_up()
                    for address in self._wanted:
                        if address not in links or links[address].done() or self._renews(address):
                            link = RouterLink(address, self, self._tls)
                            links[address] = tasks.create_task(link.run())
                    await self._until_something_is_to_do()
        finally:
            if self._grace is not None:
                self._grace.cancel()

    async def until_reachable(self) -> None:
        """Return when the first router is up; raises BadState when it runs another model."""
        await self._heard_of_one.wait()
        if self._refusal is not None:
            raise self._refusal

    def wants(self, address: str) -> bool:
        """Whether the name still stands for this address."""
        return address in self._wanted

    def check(self, description: pb.RouterServiceDescribeResponse) -> None:
        """Raises BadState when a router and the gateway, or two routers, are not of one
        checkpoint.
        """
        try:
            self._check(description)
        except BadState as error:
            self._latest_refusal = error
            if not self._heard_of_one.is_set():
                self._refusal = error
                self._heard_of_one.set()
            raise

    def link_up(self, link: RouterLink) -> None:
        """A router can be used; raises BadState when another one of another checkpoint came up
        first.
        """
        self._check(link.description)
        if self._grace is not None:
            self._grace.cancel()
        for other in [one for one in self._up if one.address == link.address]:
            other.retire()
        self._up.add(link)
        _routers.add(1)
        self._description = link.description
        self._latest_refusal = None
        self._heard_of_one.set()
        self.reachable.set()
        self.unreachable.clear()
        self._dispatcher.attach(link)
        self._dispatcher.pump()

    def link_down(self, link: RouterLink, going_on: Sequenced[Sequence]) -> None:
        """A router is lost, or never came up; what was there waits, to go on at another one or at
        this one when it is back.
        """
        if link not in self._up:
            return
        self._up.remove(link)
        _routers.add(-1)
        self._dispatcher.detach(link)
        if not self._up:
            self._grace = asyncio.get_running_loop().call_later(self._grace_seconds, self._lost)
        self._dispatcher.put_back(going_on)

    def credit_changed(self, given_back: Sequenced[Sequence]) -> None:
        """A router may have room again; what it gave back waits again."""
        self._dispatcher.put_back(given_back)

    def has_another(self, link: RouterLink) -> bool:
        """Whether another router than this link's is up."""
        return any(other.address != link.address for other in self._up)

    def outlived(self, link: RouterLink) -> None:
        """Its certificates have been replaced: connect again beside it."""
        self._to_renew.add(link.address)
        self._something_to_renew.set()

    async def _until_something_is_to_do(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RESOLVE_SECONDS):
                await self._something_to_renew.wait()
        self._something_to_renew.clear()

    def _renews(self, address: str) -> bool:
        if address not in self._to_renew:
            return False
        self._to_renew.discard(address)
        return True

    def _check(self, description: pb.RouterServiceDescribeResponse) -> None:
        if description.vocab_size != self._vocab_size:
            raise BadState(
                f"the router's model {quoted(description.model)} has a vocabulary of "
                f"{description.vocab_size}, the "
                f"gateway's checkpoint one of {self._vocab_size}; both must be given the same "
                "checkpoint"
            )
        if _differ(description.tokenizer_digest, self._tokenizer_digest):
            raise BadState(
                f"the router's model {quoted(description.model)} has another tokenizer.json than "
                "the gateway has; "
                "give both the same checkpoint, and where its files have changed meanwhile put "
                "the former ones back or "
                "start everything again"
            )
        if self._up and (
            description.model_digest != self._description.model_digest
            or _differ(description.trunk_hash, self._description.trunk_hash)
        ):
            raise BadState("the router's checkpoint is another one than that of the routers in use")

    def _unreachable(
        self, reason: str, *, retry_after_seconds: float | None = None
    ) -> ServingError:
        if self._latest_refusal is not None:
            return BadState(f"{reason}: {self._latest_refusal}")
        return Unavailable(reason, retry_after_seconds=retry_after_seconds)

    def _lost(self) -> None:
        self.reachable.clear()
        self.unreachable.set()
        self._dispatcher.fail_waiting(
            self._unreachable(f"no router came back within {self._grace_seconds:g} s")
        )

    async def _look_up(self) -> frozenset[str]:
        addresses: set[str] = set()
        for target in self._targets:
            try:
                addresses.update(await resolve(target))
            except Unavailable as error:
                logger.warning("%s", error)
        # A name server that is gone takes no router with it.
        return frozenset(addresses) or self._wanted


def _differ(one: str | bytes, other: str | bytes) -> bool:
    """Whether both are said, and not the same."""
    return bool(one and other and one != other)
