"""What every expert's weights are, by their hash: those of the router's checkpoint, where these are
known, else those that were hosted first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.wire.expert_key import ExpertKey


class Claimant(Protocol):
    """A service that says what it hosts."""

    @property
    def address(self) -> str: ...

    @property
    def content_hashes(self) -> Mapping[ExpertKey, bytes]: ...


@dataclass(frozen=True, slots=True)
class _Claim:
    content_hash: bytes
    claimant: str  # an address; empty where the router has read the expert itself


class Contents:
    """Content hashes of experts, and who claimed them first.

    Until `settle` a claim holds for as long as its service has the expert and can be used. From
    then on it holds until the router has read the expert itself: a checkpoint is what it was when
    it was first hosted whole, and who has read another one is refused. What the router has read is
    the truth, whoever came first. `version` is another one whenever services that are as they were
    may be judged otherwise.
    """

    def __init__(self) -> None:
        self.version = 0
        self._claims: dict[ExpertKey, _Claim] = {}
        self._is_settled = False
        # A service makes its hashes anew with each change.
        self._said: dict[str, Mapping[ExpertKey, bytes]] = {}
        self._found: dict[str, tuple[Mapping[ExpertKey, bytes], int, frozenset[ExpertKey]]] = {}

    def settle(self) -> None:
        """Every expert is hosted: remember what they are."""
        self._is_settled = True
        self._said.clear()

    def note_own(self, hashes: Mapping[ExpertKey, bytes]) -> bool:
        """These are experts of the router's own checkpoint; whether somebody claimed otherwise."""
        earlier = [self._claims.get(key) for key in hashes]
        self._claims |= {key: _Claim(value, "") for key, value in hashes.items()}
        are_wrong = any(
            claim is not None and claim.content_hash != value
            for claim, value in zip(earlier, hashes.values(), strict=True)
        )
        self.version += are_wrong
        return are_wrong

    def known(self, key: ExpertKey) -> bytes:
        """The hash that an expert has to have; empty while that is not settled."""
        claim = self._claims.get(key)
        is_certain = claim is not None and (self._is_settled or not claim.claimant)
        return claim.content_hash if claim is not None and is_certain else b""

    def observe(self, services: Sequence[Claimant]) -> None:
        """Take in what the services that can be used say; what others claimed is forgotten, unless
        all is settled.
        """
        said = {service.address: service.content_hashes for service in services}
        self._found = {
            address: found for address, found in list(self._found.items()) if address in said
        }
        if self._is_settled:
            return
        if self._drop_ended(said):
            self.version += 1
            self._said.clear()
        for address, hashes in said.items():
            if self._said.get(address) is not hashes:
                for key, value in hashes.items():
                    self._claims.setdefault(key, _Claim(value, address))
        self._said = said

    def refused(self, service: Claimant) -> frozenset[ExpertKey]:
        """The experts that a service hosts and that must not be used, since they are not what they
        have to be.
        """
        hashes, claims, version = service.content_hashes, self._claims, self.version
        found = self._found.get(service.address)
        if found is None or found[0] is not hashes or found[1] != version:
            claimed = [
                (key, claim.content_hash == value)
                for key, value in hashes.items()
                if (claim := claims.get(key)) is not None
            ]
            found = hashes, version, frozenset(key for key, is_right in claimed if not is_right)
            if len(claimed) == len(hashes):  # a first claim to one of the others is told nobody
                self._found[service.address] = found
        return found[2]

    def refusal(self, service: Claimant) -> str | None:
        """Why what a service has read is not used, in words, where that is so."""
        refused = self.refused(service)
        if not refused:
            return None
        address, first = service.address, min(refused)
        claimant, (layer, number) = self._claims[first].claimant, first
        expert = f"expert {number} of layer {layer}"
        if not claimant:
            return (
                f"expert service {address} has read another checkpoint than the router's: {expert} "
                f"differs; give both the same files and start {address} again"
            )
        if not self._is_settled:
            return f"{claimant} and {address} claim different weights for {expert}"
        return (
            f"the checkpoint that expert service {address} has read is not what it was when the "
            f"router started: {expert} differs from what {claimant} had; put the former files back "
            f"and start {address} again, or start everything again with the new ones"
        )

    def _drop_ended(self, said: Mapping[str, Mapping[ExpertKey, bytes]]) -> bool:
        """Forget claims whose service has the expert no more, or something else; whether there
        were any.
        """
        changed = {
            address for address, hashes in self._said.items() if said.get(address) is not hashes
        }
        ended = [
            key
            for key, claim in (self._claims.items() if changed else ())
            if claim.claimant in changed
            and said.get(claim.claimant, {}).get(key) != claim.content_hash
        ]
        for key in ended:
            del self._claims[key]
        return bool(ended)
