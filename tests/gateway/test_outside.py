"""Clients are told what failed, and not where the services within are."""

import grpc
import pytest

from moesaic.v1 import generation_pb2 as pb
from services.gateway.outside import INSTEAD, said_outside, without_addresses
from services.wire.errors import Overloaded
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:50052",
        "10.0.0.7",
        "[::1]:50053",
        "[fe80::1%eth0]:50053",
        "expert-3:50053",
        "experts.moesaic.internal:50053",
        "experts.moesaic.internal.:50053",
        "dns:///experts:50053",
    ],
)
def test_addresses_are_left_out_of_what_clients_hear(address: str) -> None:
    said = f"expert service {address} refused a frame: {address}"
    assert without_addresses(said) == f"expert service {INSTEAD} refused a frame: {INSTEAD}"


@pytest.mark.parametrize(
    "said",
    [
        "layer 3: no replica of expert 12: UNAVAILABLE",
        "sampling.temperature is 0.5; it must be from 0 to 100",
        "version 1.2.3: the limit is 2048",
        "stop.stop_strings[1] has 0 characters",
    ],
)
def test_what_is_no_address_is_told_as_it_is(said: str) -> None:
    assert without_addresses(said) == said


@pytest.mark.parametrize("words", ["a", "a-", "a.", "12345.", "[a", "dns:/", "a%"])
def test_a_long_text_without_addresses_is_looked_through_once(words: str) -> None:
    said = words * 50_000  # what a client says can come back in a refusal
    assert without_addresses(said) == said


def test_the_failure_is_otherwise_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with pytest.raises(Overloaded) as failure, said_outside():
        raise Overloaded("10.0.0.7:50052 is full", retry_after_seconds=3)
    assert str(failure.value) == f"{INSTEAD} is full"
    assert failure.value.retry_after_seconds == 3
    assert "10.0.0.7:50052 is full" in caplog.text  # for the operator


async def test_no_call_tells_of_an_address_within() -> None:
    router = RouterDouble()
    async with running_gateway(router, router_grace_seconds=0) as client:
        router.description.model, router.description.vocab_size = "10.0.0.7:50052", 5
        router.break_stream()
        for _ in range(3):  # once at first, once to be refused, and once more after that
            await router.described.get()
        for call in (
            client.generate().read(),
            client.stub.GetModel(pb.GetModelRequest()),
            client.stub.Tokenize(pb.TokenizeRequest(text="hello")),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=r"router's model .*an address"):
                await call
