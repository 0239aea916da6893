"""What is written down of every step: its sequences' receipts, spans, metrics, and what the lane
policy sees.
"""

from services.router.engine.lane_control import LaneControl
from services.router.engine.metrics import StepMetrics
from services.router.engine.spans import spans_of_step
from services.router.engine.step import Step
from services.router.engine.tracing import TracePolicy
from services.runtime.failures import aside


class StepAccount:
    """Accounts for each step from its start to its end, whether it fails or not.

    What fails here while it observes is left aside: the step goes on.
    """

    def __init__(self, tracing: TracePolicy, metrics: StepMetrics, lanes: LaneControl) -> None:
        self._tracing = tracing
        self._metrics = metrics
        self._lanes = lanes

    def begin(self, step: Step) -> None:
        """The step is about to be computed."""
        sequences = [work.sequence for work in step.batch]
        with aside("tracing a step"):
            step.spans = spans_of_step(self._tracing, sequences, step.lane, step.clock.started)
        for sequence, prefill in zip(sequences, step.prefilling, strict=True):
            sequence.receipt.enter_step(step.clock, prefill=prefill)

    def end(self, step: Step, num_drawn: int) -> None:
        """It is over, with so many tokens drawn; nobody has heard of them yet."""
        step.clock.charge("sampling")
        for work, prefill in zip(step.batch, step.prefilling, strict=True):
            work.sequence.receipt.leave_step(step.clock, prefill=prefill)
        with aside("observing a step"):
            step.spans.end(step.clock.parts, step.num_tokens)
            self._metrics.record(step, num_drawn)
            self._lanes.note(step, num_drawn)
