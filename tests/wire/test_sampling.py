"""The table of the sampling parameters is what the protos, the command line and the docs have."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from moesaic.v1 import common_pb2, generation_pb2, router_pb2
from services.cli.bench.settings import BenchSettings
from services.cli.sampling_flags import say_sampling
from services.cli.settings import GenerateSettings
from services.metadata.fields import Fields
from services.metadata.generation import read_recommendation
from services.router.orders import order_of
from services.wire.errors import InvalidRequest
from services.wire.ranges import number_text
from services.wire.sampling import (
    DEFAULTS,
    PARAMETERS,
    RECOMMENDABLE,
    Sampling,
    is_whole,
    read_complete_sampling,
    read_sampling,
    write_sampling,
)

DOCUMENT = Path(__file__).parents[2] / "docs/sampling.md"
FIELDS = common_pb2.SamplingParameters.DESCRIPTOR.fields_by_name
UNLIKE_THE_DEFAULT = Sampling(0.5, 7, 0.25, 0.125, 2**64 - 1, 1.5, 0.75, -0.5)
# Fields that name tokens are no numbers, and have no flag of the table's kind.
NAMING = ["logit_bias", "allowed_token_ids"]


def sampling_row(name: str) -> str:
    parameter = PARAMETERS[name]
    default = "random" if name == "seed" else number_text(getattr(DEFAULTS, name))
    flag = f"--{name.replace('_', '-')}"
    return f"| `{name}` | `{flag}` | {parameter.meaning} | {parameter.allowed} | {default} |"


def test_the_proto_and_the_table_have_the_same_parameters() -> None:
    assert list(FIELDS) == [*PARAMETERS, *NAMING]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_has_the_type_of_its_field_and_may_be_left_open(name: str) -> None:
    whole = (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    assert FIELDS[name].has_presence
    assert (FIELDS[name].cpp_type in whole) == is_whole(name)


def test_every_parameter_goes_to_the_router_and_comes_back() -> None:
    assert all(getattr(UNLIKE_THE_DEFAULT, name) != getattr(DEFAULTS, name) for name in PARAMETERS)
    assert read_complete_sampling(write_sampling(UNLIKE_THE_DEFAULT)) == UNLIKE_THE_DEFAULT


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_a_request_leaves_open_is_the_default_and_what_it_sets_is_not(name: str) -> None:
    asked = write_sampling(UNLIKE_THE_DEFAULT)
    asked.ClearField(name)  # type: ignore[arg-type]
    expected = replace(UNLIKE_THE_DEFAULT, **{name: getattr(DEFAULTS, name)})
    assert read_sampling(asked) == expected


def test_a_router_does_without_what_came_later_and_nothing_else() -> None:
    for name, parameter in PARAMETERS.items():
        message = write_sampling(DEFAULTS)
        message.ClearField(name)  # type: ignore[arg-type]
        if parameter.came_later:
            assert read_complete_sampling(message) == DEFAULTS
        else:
            with pytest.raises(InvalidRequest, match=rf"^sampling\.{name} is not set$"):
                read_complete_sampling(message)


def test_a_new_parameter_is_marked_as_having_come_later() -> None:
    # Else no gateway of an earlier version could be served.
    assert [name for name, parameter in PARAMETERS.items() if not parameter.came_later] == [
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "seed",
    ]


def outside(name: str) -> list[float]:
    """Values that the field can carry and the table does not allow."""
    if is_whole(name):  # all that fits into the field is allowed
        return []
    allowed = PARAMETERS[name].allowed
    too_small = allowed.least if allowed.is_above else math.nextafter(allowed.least, -math.inf)
    too_large = math.nextafter(allowed.most, math.inf)
    return [too_small, too_large, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in PARAMETERS for value in outside(name)]
)
def test_gateway_and_router_refuse_a_value_in_the_same_words(name: str, value: float) -> None:
    parameters = write_sampling(DEFAULTS)
    setattr(parameters, name, value)
    with pytest.raises(InvalidRequest) as at_gateway:
        read_sampling(parameters)
    request = router_pb2.SequenceRequest(
        prompt_token_ids=[1], max_new_tokens=1, sampling=parameters
    )
    with pytest.raises(InvalidRequest) as at_router:
        order_of(request, 2)
    words = f"sampling.{name} is {number_text(value)}; it must be {PARAMETERS[name].allowed}"
    assert str(at_gateway.value) == str(at_router.value) == words


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_is_a_flag_with_its_limits(name: str) -> None:
    allowed = PARAMETERS[name].allowed
    for value in (allowed.most, getattr(UNLIKE_THE_DEFAULT, name)):
        request = generation_pb2.GenerateRequest()
        stated: dict[str, Any] = {name: value}
        say_sampling(request, GenerateSettings(prompt="Once", **stated))
        assert request.sampling == common_pb2.SamplingParameters(**stated)
    commands: list[tuple[type[BaseSettings], dict[str, Any]]] = [
        (GenerateSettings, {"prompt": "Once"}),
        (BenchSettings, {}),
    ]
    for settings, required in commands:
        for wrong in (*outside(name), allowed.least - 1, allowed.most * 2):
            with pytest.raises(ValidationError, match=name):
                settings(**required | {name: wrong})


def test_the_documented_parameters_are_those_of_the_table() -> None:
    table = [
        line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    assert table[: len(PARAMETERS)] == [sampling_row(name) for name in PARAMETERS]


@pytest.mark.parametrize("name", RECOMMENDABLE)
def test_a_checkpoint_may_recommend_what_transformers_reads_there(name: str) -> None:
    value = getattr(UNLIKE_THE_DEFAULT, name)
    file = Fields("generation_config.json", {"do_sample": True, name: value})
    assert read_recommendation(file).sampling == replace(DEFAULTS, **{name: value})
    own = {"seed", "presence_penalty", "frequency_penalty"}
    assert RECOMMENDABLE.keys() | own == PARAMETERS.keys()
