"""What every expert's weights are, by their hash: from when all were hosted first, no others are
taken.
"""

from collections.abc import Mapping, Set
from typing import Protocol

from services.wire.expert_key import ExpertKey


class Claimant(Protocol):
    """A service that says what it hosts."""

    @property
    def address(self) -> str: ...

    @property
    def content_hashes(self) -> Mapping[ExpertKey, bytes]: ...


class Contents:
    """Content hashes of experts, and who claimed them first.

    Until `settle` a claim holds for as long as the service that made it can be used. From then on
    it holds for good: a checkpoint is what it was when it was first hosted whole, and who has read
    another one is refused.
    """

    def __init__(self) -> None:
        self._claims: dict[ExpertKey, tuple[bytes, str]] = {}
        self._is_settled = False
        # What was found, and of which hashes: a service makes these anew with each change.
        self._found: dict[str, tuple[Mapping[ExpertKey, bytes], frozenset[ExpertKey]]] = {}

    def settle(self) -> None:
        """Every expert is hosted: remember what they are."""
        self._is_settled = True
        self._found.clear()

    def known(self, key: ExpertKey) -> bytes:
        """The hash that an expert has to have; empty while that is not settled."""
        return self._claims[key][0] if self._is_settled and key in self._claims else b""

    def keep(self, usable: Set[str]) -> None:
        """These services can be used; what others claimed is forgotten, unless all is settled."""
        if not self._is_settled:
            self._claims = {key: claim for key, claim in self._claims.items() if claim[1] in usable}

    def claim(self, service: Claimant) -> frozenset[ExpertKey]:
        """Take in what a service that can be used says; the experts of it that are not what they
        were said to be.
        """
        if not self._is_settled:
            for key, content_hash in service.content_hashes.items():
                if self._claims.get(key, (b"", service.address))[1] == service.address:
                    self._claims[key] = content_hash, service.address
        return self._differing(service)

    def refused(self, service: Claimant) -> frozenset[ExpertKey]:
        """The experts that a service hosts and that must not be used; none while nothing is
        settled.
        """
        return self._differing(service) if self._is_settled else frozenset()

    def refusal(self, service: Claimant) -> str | None:
        """Why what a service has read is not used, in words, where that is so."""
        refused = self.refused(service)
        if not refused:
            return None
        layer, expert = min(refused)
        return (
            f"the checkpoint that expert service {service.address} has read is not what it was "
            "when the router "
            f"started: expert {expert} of layer {layer} differs from what "
            f"{self.claimant(layer, expert)} had; put the "
            f"former files back and start {service.address} again, or start everything again with "
            "the new ones"
        )

    def claimant(self, layer: int, expert: int) -> str:
        """Who hosted an expert first."""
        return self._claims[ExpertKey(layer, expert)][1]

    def _differing(self, service: Claimant) -> frozenset[ExpertKey]:
        hashes = service.content_hashes
        found = self._found.get(service.address)
        if found is None or found[0] is not hashes or not self._is_settled:
            claims = self._claims
            differing = (
                key for key, value in hashes.items() if claims.get(key, (value, ""))[0] != value
            )
            found = self._found[service.address] = hashes, frozenset(differing)
        return found[1]
