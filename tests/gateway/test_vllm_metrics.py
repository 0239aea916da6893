"""What is measured of requests has vLLM's names too, where a gateway is told so."""

from collections.abc import Mapping

import grpc
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from tests.gateway.gateway_client import running_gateway
from tests.gateway.http.http_client import http_gateway
from tests.gateway.router_double import RouterDouble, finished, token

GAUGES = {"num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"}
COUNTERS = {"prompt_tokens_total", "generation_tokens_total"}
HISTOGRAMS = {
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
}
RECEIPT = common_pb2.LatencyReceipt(
    prefill=common_pb2.PhaseReceipt(step_wait_nanos=10**9, expert_compute_nanos=2 * 10**9),
    decode=common_pb2.PhaseReceipt(expert_compute_nanos=4 * 10**9),
)


def shown(exposition: bytes | None = None) -> Mapping[str, float]:
    """Every sample of vLLM's names, without their beginning and the model's label."""
    text = (generate_latest(REGISTRY) if exposition is None else exposition).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("vllm:"):
                labels = dict(sample.labels)
                assert labels.pop("model_name") == "tessera"
                rest = "".join(f" {value}" for value in labels.values())
                found[sample.name.removeprefix("vllm:") + rest] = sample.value
    return found


async def test_each_of_vllms_names_is_there_and_moves_with_requests() -> None:
    double = RouterDouble()
    async with running_gateway(double, metrics_aliases="vllm") as client:
        before = shown()
        assert {before[name] for name in GAUGES | COUNTERS} == {0}
        assert {before[f"{name}_count"] for name in HISTOGRAMS} == {0}

        call = client.generate()
        sequence = await double.next_sequence()
        assert shown()["num_requests_running"] == 1
        double.kv_tokens = 128  # of 512
        double.say(token(sequence.sequence, 5), credit=True)
        await call.read()
        during = shown()
        assert during["time_to_first_token_seconds_count"] == 1
        assert during["kv_cache_usage_perc"] == 0.75

        last = finished(sequence.sequence, receipt=RECEIPT)
        double.say(token(sequence.sequence, 6), token(sequence.sequence, 7), last)
        while await call.read() is not grpc.aio.EOF:
            pass
        after = shown()
    assert after["num_requests_running"] == 0
    assert after["prompt_tokens_total"] == len(sequence.prompt_token_ids)
    assert after["generation_tokens_total"] == 3
    assert after["request_success_total length"] == 1
    assert {after[f"{name}_count"] for name in HISTOGRAMS - {"inter_token_latency_seconds"}} == {1}
    assert after["inter_token_latency_seconds_count"] == 2
    assert 1 <= after["request_queue_time_seconds_sum"] < 2
    assert after["request_prefill_time_seconds_sum"] == 2
    assert after["request_decode_time_seconds_sum"] == 4
    assert after["request_generation_tokens_sum"] == 3


async def test_what_waits_and_what_fails_is_counted() -> None:
    async with running_gateway(RouterDouble(sequences=0), metrics_aliases="vllm") as client:
        waiting = client.generate()
        await client.stub.GetModel(pb.GetModelRequest())  # which came after it
        assert shown()["num_requests_waiting"] == 1
        waiting.cancel()
        await client.refused("")
        assert shown()["request_success_total abort"] >= 1


async def test_they_stand_on_the_http_port_and_go_with_the_gateway() -> None:
    async with http_gateway(RouterDouble(answer=[5]), metrics_aliases="vllm") as client:
        await client.grpc.complete()
        over_http = shown((await client.get("/metrics")).body)
    assert over_http["generation_tokens_total"] == 1
    assert shown() == {}


async def test_without_being_told_so_a_gateway_has_none() -> None:
    async with running_gateway(RouterDouble(answer=[5])) as client:
        await client.complete()
        assert shown() == {}


async def test_each_choice_counts_as_a_request_of_its_own_as_vllms_do() -> None:
    double = RouterDouble()
    async with running_gateway(double, metrics_aliases="vllm") as client:
        call = client.generate(num_choices=2)
        one, other = await double.next_sequences(2)
        for sequence in (one, other, one):
            double.say(token(sequence.sequence, 5))
            await call.read()
        double.say(finished(one.sequence), finished(other.sequence))
        while await call.read() is not grpc.aio.EOF:
            pass
        after = shown()
    assert after["prompt_tokens_total"] == 2 * len(one.prompt_token_ids)
    assert after["request_success_total length"] == 2
    assert after["time_to_first_token_seconds_count"] == 2
    assert after["inter_token_latency_seconds_count"] == 1
    assert after["request_time_per_output_token_seconds_count"] == 1
