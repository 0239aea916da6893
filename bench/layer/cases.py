"""The layers that bench.layer measures, and the services that each of them has."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.rig.checkpoints import LAYER_OF_OLMOE, experts_only, hollow
from bench.rig.expert_members import expert_members
from bench.rig.processes import Server, forked, services_running
from bench.rig.simulated import SimulatedExpert, simulated_expert
from services.runtime.embedded_model import EMBEDDED_MODEL

NUM_SERVICES = 2


@dataclass(frozen=True)
class Case:
    """A layer and how many rows go through it."""

    name: str
    model: Path
    num_rows: int
    top_k: int
    is_simulated: bool = False

    @property
    def label(self) -> str:
        """Its name, and that it is simulated where it is."""
        return f"{self.name}, SIMULATED devices without time" if self.is_simulated else self.name

    def services(self, variables: Mapping[str, str]) -> AbstractAsyncContextManager[list[Server]]:
        """Its services, running with these variables in their environment until the block ends."""
        if self.is_simulated:
            return forked(simulated_expert, [SimulatedExpert(self.model)] * NUM_SERVICES, variables)
        return services_running(expert_members(self.model, NUM_SERVICES), variables)


def cases() -> list[Case]:
    """The issue's shapes; the last is one row of 4 KiB to each service."""
    return [
        Case("64 rows x 2048, top-8 of 64", experts_only(LAYER_OF_OLMOE), 64, 8),
        Case("64 rows x 192, top-2 of 16 (shipped)", EMBEDDED_MODEL, 64, 2),
        Case(
            "1 row x 2048, top-2 of 2 (4 KiB)",
            experts_only(hollow(2048, 1, 2, 2)),
            1,
            2,
            is_simulated=True,
        ),
    ]
