"""What is counted of frames that were computed twice."""

from collections.abc import Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.router.dispatch.auditor import Auditor

AUDITS = "moesaic.router.audits"

meter = metrics.get_meter(__name__)


def observe_auditor(auditor: Auditor) -> None:
    """Observe what was found of the frames that were looked at."""

    def audits(_: CallbackOptions) -> Iterable[Observation]:
        for outcome, frames in auditor.outcomes.items():
            yield Observation(frames, {"outcome": outcome})

    meter.create_observable_counter(AUDITS, [audits], "{frame}", "frames computed twice")
