"""The flags of `moesaic generate` ask for what they say, and its JSON has what came."""

from typing import Any

import pytest
from pydantic import ValidationError

from moesaic.v1 import common_pb2, generation_pb2
from services.cli.cost import as_object
from services.cli.request import GenerateResult, build_request
from services.cli.settings import GenerateSettings


def test_every_flag_is_a_field_of_the_request() -> None:
    flags: dict[str, Any] = {
        "logit_bias": ["5=-100", "7=2.5"],
        "allowed_token_ids": ["7", "9"],
        "stop_token_ids": ["3"],
        "min_new_tokens": 2,
        "include_stop_string": True,
        "top_logprobs": 0,
        "prompt_logprobs": True,
        "num_choices": 3,
        "keep_special_tokens": True,
        "without_special_tokens": True,
    }
    request = build_request(GenerateSettings(prompt="Once", **flags), "Once")
    assert request == generation_pb2.GenerateRequest(
        text="Once",
        sampling=common_pb2.SamplingParameters(
            logit_bias={5: -100, 7: 2.5}, allowed_token_ids=[7, 9]
        ),
        stop=common_pb2.StopConditions(
            stop_token_ids=[3], min_new_tokens=2, include_stop_string=True
        ),
        top_logprobs=0,
        prompt_logprobs=True,
        num_choices=3,
        keep_special_tokens=True,
        without_special_tokens=True,
    )


def test_what_is_left_out_is_left_to_the_server() -> None:
    request = build_request(GenerateSettings(prompt="Once"), "Once")
    request.ClearField("text")
    assert not any(value.ByteSize() for _, value in request.ListFields())


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("logit_bias", [text]) for text in ("5", "5=", "=1", "-1=1", "5=101", "5=nan")),
        ("logit_bias", [f"{token}=1" for token in range(1025)]),
        ("allowed_token_ids", ["-1"]),
        ("stop_token_ids", [str(token) for token in range(65)]),
        ("top_logprobs", 21),
        ("num_choices", 129),
    ],
)
def test_a_flag_out_of_bounds_is_refused_by_name(flag: str, value: Any) -> None:
    stated: dict[str, Any] = {flag: value}
    with pytest.raises(ValidationError, match=flag):
        GenerateSettings(prompt="Once", **stated)


def test_likelihoods_and_other_choices_are_in_the_object_where_they_came() -> None:
    position = common_pb2.PositionLogprobs()
    position.token.token_id, position.token.logprob = 3, -0.5
    position.top.add(token_id=4, logprob=-0.25)
    other = GenerateResult(text="b")
    document = as_object(GenerateResult(text="a", logprobs=[position], others=[other]))
    assert document["logprobs"] == [
        {"token_id": 3, "logprob": -0.5, "top": [{"token_id": 4, "logprob": -0.25}]}
    ]
    assert [each["text"] for each in document["others"]] == ["b"]
    assert not {"logprobs", "prompt_logprobs", "others"} & as_object(other).keys()
