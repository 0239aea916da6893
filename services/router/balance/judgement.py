"""What a plan comes to, with the figures it is judged by, and the goal of having it carried out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.router.arrays import Floats
from services.router.load.imbalance import imbalance
from services.router.planning.goals import Goal, WantedHosting
from services.router.planning.host import Host
from services.router.planning.plan import Plan
from services.router.planning.targets import Target


@dataclass(frozen=True, eq=False)
class Judgement:
    """A plan with what it is judged by: its imbalance before and after, and in how many steps the
    load was seen that it is made for.
    """

    plan: Plan
    num_steps: int

    @property
    def before_imbalance(self) -> Floats:
        """Imbalance of each layer in a mean step, as it is: [layers]."""
        return imbalance(self.plan.before_pairs)

    @property
    def after_imbalance(self) -> Floats:
        """The same as planned."""
        return imbalance(self.plan.after_pairs)


@dataclass(frozen=True)
class Planned(Goal):
    """What was planned. Two of one strategy are the same goal: who asks again for an operation has
    no other plan.
    """

    strategy: str
    judgement: Judgement = field(compare=False)

    def target(self, hosts: Sequence[Host], wanted: WantedHosting) -> Target:
        """As it was planned, whoever is there."""
        return {address: set(experts) for address, experts in self.judgement.plan.target.items()}

    def __str__(self) -> str:
        plan = self.judgement.plan
        return (
            f"{self.strategy} plan of {len(plan.moves)} loads and {len(plan.unloads)} replicas "
            "given up"
        )
