"""Figures of a batch of requests, and the settings that transformers is tried with."""

from types import SimpleNamespace
from typing import cast

from bench.generate.router_load import Batch
from bench.generate.transformers_load import Setting, best_by_threads, settings_for
from bench.rig.generated import Generated
from bench.rig.peers import decode_step, random_gate
from moesaic.v1 import router_pb2
from services.model.checkpoint import Checkpoint


def checkpoint(expert_bytes: int) -> Checkpoint:
    told = SimpleNamespace(
        num_experts_per_token=4, moe_layers=(0,), expert_bytes=lambda layer: expert_bytes
    )
    return cast(Checkpoint, told)


def test_rates_and_latencies_follow_from_the_arrival_of_tokens() -> None:
    generated = Generated(2.0, [[0.5, 0.6, 0.9], [1.0, 1.5, 2.0]], [[1, 2, 3], [4, 5, 6]])
    assert generated.tokens_per_second == 3.0
    assert generated.first_token_ms == [500.0, 1000.0]
    assert [round(value) for value in generated.inter_token_ms] == [100, 300, 500, 500]


def test_every_setting_is_tried_that_fits_into_memory() -> None:
    assert len(settings_for(checkpoint(1 << 10), 64)) == 6
    large = settings_for(checkpoint(1 << 24), 64)
    assert Setting("batched_mm", 1) not in large
    assert len(large) == 4


def test_sequences_are_submitted_as_credit_allows() -> None:
    batch = Batch([[1], [2], [3]], num_new_tokens=2)
    first = batch.submit(router_pb2.Credit(sequences=2))
    assert first is not None
    assert [sequence.sequence for sequence in first.sequences] == [0, 1]
    assert batch.submit(router_pb2.Credit(sequences=2)) is None, (
        "the credit knows nothing of the first submission"
    )
    second = batch.submit(router_pb2.Credit(sequences=1, acknowledged_submits=1))
    assert second is not None
    assert [sequence.sequence for sequence in second.sequences] == [2]


def test_a_gate_chooses_different_experts_in_a_row_and_the_same_again() -> None:
    gate = random_gate(8, 16, 4, seed=1)
    assert all(len(set(row)) == 4 for row in gate.tolist())
    assert gate.equal(random_gate(8, 16, 4, seed=1))


def test_a_decoding_step_has_a_row_for_each_sequence() -> None:
    step = decode_step(3)
    assert step.num_tokens == 3
    assert len({work.sequence.number for work in step.batch}) == 3


def test_the_best_setting_of_each_number_of_threads_goes_on() -> None:
    seconds = {("eager", 1): 3.0, ("grouped_mm", 1): 2.0, ("eager", 2): 1.0, ("grouped_mm", 2): 4.0}
    probes = {Setting(*setting): Generated(taken, [], []) for setting, taken in seconds.items()}
    assert set(best_by_threads(probes)) == {Setting("grouped_mm", 1), Setting("eager", 2)}
