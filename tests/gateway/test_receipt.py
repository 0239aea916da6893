"""The latency receipt: parts measured on their own, and what they leave shown as unaccounted."""

from hypothesis import given
from hypothesis import strategies as st

from moesaic.v1 import common_pb2, router_pb2
from services.gateway.receipt import GatewayTimes, write_receipt
from services.gateway.sequence import Finish
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble, finished, token

NANOS = st.integers(0, 10**12)
ROUTER_PARTS = common_pb2.LatencyReceipt(
    prefill=common_pb2.PhaseReceipt(step_wait_nanos=1, dense_nanos=20, steps=1),
    decode=common_pb2.PhaseReceipt(wire_nanos=300, combine_nanos=4_000, steps=7),
    retries=2,
    hedges=3,
    slowest_service="10.0.0.1:50053",
    slowest_service_layers=5,
)


def finish(*, received_nanos: int, router_nanos: int) -> Finish:
    message = router_pb2.SequenceFinish(receipt=ROUTER_PARTS, router_nanos=router_nanos)
    return Finish(message, received_nanos)


def test_every_part_is_shown_and_the_rest_is_unaccounted() -> None:
    times = GatewayTimes(
        1_000, tokenise_nanos=50, queue_nanos=60, taken_nanos=1_200, detokenise_nanos=70
    )
    receipt = write_receipt(
        times, finish(received_nanos=9_200, router_nanos=7_500), ended_nanos=11_000
    )
    assert receipt.end_to_end_nanos == 10_000
    assert receipt.tokenise_nanos == 50
    assert receipt.gateway_queue_nanos == 60
    assert receipt.gateway_router_nanos == 9_200 - 1_200 - 7_500
    assert receipt.detokenise_nanos == 70
    assert (receipt.prefill, receipt.decode) == (ROUTER_PARTS.prefill, ROUTER_PARTS.decode)
    assert (receipt.retries, receipt.hedges) == (2, 3)
    assert receipt.slowest_service == "10.0.0.1:50053"
    assert receipt.unaccounted_nanos == 10_000 - 50 - 60 - 500 - 70 - (1 + 20 + 300 + 4_000)


def test_without_the_routers_end_its_parts_are_unaccounted() -> None:
    receipt = write_receipt(
        GatewayTimes(0, tokenise_nanos=10, taken_nanos=20), None, ended_nanos=100
    )
    assert (receipt.gateway_router_nanos, receipt.unaccounted_nanos) == (0, 90)


@given(*[NANOS] * 7)
def test_no_part_is_ever_negative(
    tokenise: int, queue: int, taken: int, detokenise: int, received: int, router: int, end: int
) -> None:
    times = GatewayTimes(0, tokenise, queue, taken, detokenise)
    receipt = write_receipt(
        times, finish(received_nanos=received, router_nanos=router), ended_nanos=end
    )
    assert receipt.gateway_router_nanos >= 0
    assert receipt.unaccounted_nanos >= 0


async def test_the_gateway_fills_its_parts_in_around_the_routers() -> None:
    router = RouterDouble()
    async with running_gateway(router) as client:
        call = client.generate()
        number = (await router.next_sequence()).sequence
        router.say(
            token(number, 5),
            finished(number, receipt=ROUTER_PARTS, router_nanos=1, overflowed_pairs=3),
        )
        *_, last = [event async for event in call]
    receipt = last.completion.receipt
    assert receipt.decode == ROUTER_PARTS.decode
    for part in ("tokenise", "gateway_queue", "gateway_router", "detokenise"):
        assert 0 < getattr(receipt, f"{part}_nanos") < receipt.end_to_end_nanos
    assert receipt.unaccounted_nanos < receipt.end_to_end_nanos
    assert last.completion.usage.overflowed_pairs == 3


async def test_a_request_that_a_stop_string_ended_has_the_routers_receipt_too() -> None:
    router = RouterDouble()
    router.cancel_receipt = ROUTER_PARTS
    async with running_gateway(router) as client:
        call = client.generate(stop=common_pb2.StopConditions(stop_strings=['"']))
        number = (await router.next_sequence()).sequence
        router.say(token(number, 5))  # a quotation mark
        *_, last = [event async for event in call]
    assert last.completion.stop_string == '"'
    assert last.completion.receipt.decode == ROUTER_PARTS.decode
