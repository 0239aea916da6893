"""What is counted of frames that were computed twice."""

from collections.abc import Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.router.dispatch.auditor import Auditor

AUDITS = "moesaic.router.audits"
OUTCOMES = ("agreed", "altered", "undecided", "alone", "unanswered", "left", "passed_over")

meter = metrics.get_meter(__name__)


def observe_auditor(auditor: Auditor) -> None:
    """Observe what was found of the frames that were looked at."""

    def audits(_: CallbackOptions) -> Iterable[Observation]:
        for outcome in {*OUTCOMES, *auditor.outcomes.copy()}:
            yield Observation(auditor.outcomes[outcome], {"outcome": outcome})

    meter.create_observable_counter(AUDITS, [audits], "{frame}", "frames computed twice")
