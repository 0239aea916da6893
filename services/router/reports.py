"""What the router tells the gateway of a sequence, as messages."""

from collections.abc import Mapping

from moesaic.v1 import common_pb2, router_pb2
from services.model.likelihood import Likelihood
from services.router.engine.sequence import Ending, EndReason, Sequence, Stopping
from services.router.engine.step import Step
from services.router.times.receipt import PhaseTotals, SequenceReceipt


def report_token(
    response: router_pb2.RunResponse, name: int, sequence: Sequence, token: int, step: Step | None
) -> None:
    """Add a token of the sequence that the gateway calls `name`."""
    # Filled in place: an event that is made apart is copied, and this runs for each token.
    event = response.events.add()
    event.sequence = name
    event.token.token_id = token
    if sequence.order.return_routed_experts and step is not None:
        row = step.drawing.index(sequence)
        event.token.routed_experts.layers.extend(
            common_pb2.RoutedLayer(layer=layer, experts=experts[row].tolist())
            for layer, experts in step.routed.items()
        )
    if sequence.order.scoring is not None and step is not None:
        _write_likelihood(event.token.logprobs, step.likelihoods[sequence.number])
        for likelihood in sequence.take_scores():
            _write_likelihood(event.token.prompt_logprobs.add(), likelihood)


def report_finish(
    response: router_pb2.RunResponse, name: int, ending: Ending, sequence: Sequence | None = None
) -> None:
    """Add the end of the sequence that the gateway calls `name`; without a `sequence` it was never
    taken in.
    """
    event = response.events.add()
    event.sequence = name
    finish = event.finish
    finish.reason = _REASONS[ending.reason]
    if ending.error is not None:
        finish.status_code = ending.error.status.value[0]
        finish.message = str(ending.error)
        finish.is_stopping = isinstance(ending.error, Stopping)
    if sequence is not None:
        finish.overflowed_pairs = sequence.overflowed_pairs
        finish.router_nanos = sequence.receipt.elapsed()
        finish.receipt.CopyFrom(_receipt(sequence.receipt))


def _write_likelihood(message: common_pb2.PositionLogprobs, likelihood: Likelihood) -> None:
    message.token.token_id, message.token.logprob = likelihood.token, likelihood.logprob
    for token, logprob in likelihood.top:
        message.top.add(token_id=token, logprob=logprob)


_REASONS: Mapping[EndReason, "common_pb2.FinishReason.ValueType"] = {
    EndReason.STOP: common_pb2.FINISH_REASON_STOP,
    EndReason.LENGTH: common_pb2.FINISH_REASON_LENGTH,
    EndReason.CANCELLED: common_pb2.FINISH_REASON_CANCELLED,
    EndReason.DEADLINE: common_pb2.FINISH_REASON_DEADLINE,
    EndReason.ERROR: common_pb2.FINISH_REASON_ERROR,
}


def _receipt(receipt: SequenceReceipt) -> common_pb2.LatencyReceipt:
    message = common_pb2.LatencyReceipt(
        prefill=_phase(receipt.prefill),
        decode=_phase(receipt.decode),
        retries=receipt.retries,
        hedges=receipt.hedges,
    )
    if receipt.slowest_service is not None:
        message.slowest_service, message.slowest_service_layers = receipt.slowest_service
    return message


def _phase(phase: PhaseTotals) -> common_pb2.PhaseReceipt:
    parts = {f"{part}_nanos": nanos for part, nanos in vars(phase.parts).items()}
    return common_pb2.PhaseReceipt(steps=phase.steps, **parts)
