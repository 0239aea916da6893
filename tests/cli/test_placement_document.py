"""The placement as a file."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesaic.v1 import router_pb2
from services.cli.hosting.document import PlacementDocument, numbers_in, ranges_of
from services.wire.errors import InvalidRequest


def service(address: str, *, is_live: bool = True, **layers: list[int]) -> router_pb2.PlacedService:
    return router_pb2.PlacedService(
        address=address,
        is_live=is_live,
        layers=[
            router_pb2.HostedLayer(layer=int(name[1:]), experts=experts)
            for name, experts in layers.items()
        ],
    )


PLACEMENT = router_pb2.GetPlacementResponse(
    model_digest="sha256:1",
    services=[
        service("a:1", L0=[0, 1, 2, 3, 7], L2=[5]),
        service("b:1"),
        service("gone:1", is_live=False, L0=[4]),
    ],
)


def test_the_services_that_are_there_are_written_with_their_experts_as_ranges() -> None:
    text = PlacementDocument.from_response(PLACEMENT).text()
    assert json.loads(text) == {
        "model_digest": "sha256:1",
        "services": {"a:1": {"0": "0-3,7", "2": "5"}, "b:1": {}},
    }


def test_what_was_written_is_read_as_a_target() -> None:
    target = PlacementDocument.read(PlacementDocument.from_response(PLACEMENT).text()).target()
    assert target.model_digest == "sha256:1"
    assert {
        one.address: {layer.layer: [*layer.experts] for layer in one.layers}
        for one in target.services
    } == {
        "a:1": {0: [0, 1, 2, 3, 7], 2: [5]},
        "b:1": {},
    }


@given(st.sets(st.integers(0, 65_535)))
def test_ranges_are_read_as_they_were_written(numbers: set[int]) -> None:
    assert numbers_in(ranges_of(numbers)) == sorted(numbers)


def test_numbers_in_a_row_are_one_range() -> None:
    assert ranges_of([7, 3, 2, 1, 0]) == "0-3,7"
    assert numbers_in(" 7, 0 - 2 ,1") == [0, 1, 2, 7]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "services: Field required"),
        ({"services": {}, "extra": 1}, "extra: Extra inputs are not permitted"),
        ([], "Input should be a valid dictionary"),
        (
            {"services": {"http://a:1": {}}},
            "services: http://a:1: it should be host:port, without http://",
        ),
        ({"services": {"a:1": ["0"]}}, "services: a:1: Input should be a valid dictionary"),
        ({"services": {"a:1": {"zero": "1"}}}, "services: a:1: 'zero' is no layer"),
        (
            {"services": {"a:1": {"0": "3-1"}}},
            "services: a:1: layer 0: '3-1' is no range of experts from 0 to 65535",
        ),
        (
            {"services": {"a:1": {"0": "0-99999999"}}},
            "'0-99999999' is no range of experts from 0 to 65535",
        ),
        ({"services": {"a:1": {"0": "-1"}}}, "'-1' is no range of experts such as 0-3"),
        ({"services": {"a:1": {"0": "1-"}}}, "'1-' is no range of experts such as 0-3"),
        ({"services": {"a:1": {"0": [1]}}}, "services: a:1: 0: Input should be a valid string"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(document: Any, said: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        PlacementDocument.read(json.dumps(document))
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", '{"services": {"a:1": {}, "a:1": {}}}'])
def test_what_is_no_json_or_says_something_twice_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="it is no JSON: "):
        PlacementDocument.read(text)
