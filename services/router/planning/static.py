"""The strategy that is none: what was said is hosted, whatever the load."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from services.router.planning.draft import Draft
from services.router.planning.strategy import Proposal
from services.router.planning.target_check import check_target
from services.wire.expert_key import ExpertKey


@dataclass(frozen=True)
class Static:
    """Has the services host just what `experts` says, by address, as a placement file does."""

    experts: Mapping[str, Set[ExpertKey]]

    def propose(self, draft: Draft) -> Proposal:
        """Change the draft; see Strategy. Raises what `check_target` does for a target that must
        not be carried out.
        """
        keys = [
            ExpertKey(layer, expert)
            for layer in draft.layers
            for expert in range(draft.num_experts)
        ]
        stated = {
            address: mine for address, mine in self.experts.items() if mine
        }  # who is to be empty may be gone
        check_target(stated, keys, draft.hosts, draft.coverage)
        layers = {layer: position for position, layer in enumerate(draft.layers)}
        services = {host.address: service for service, host in enumerate(draft.hosts)}
        draft.replace(
            {
                (layers[layer], it, services[address])
                for address, mine in stated.items()
                for layer, it in mine
            }
        )
        return Proposal({}, "this is what the placement file says")
