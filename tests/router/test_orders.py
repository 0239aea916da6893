"""A sequence request is refused by the name of what is wrong with it."""

from typing import Any

import pytest

from moesaic.v1 import common_pb2, router_pb2
from services.router.engine.sequence import Scoring
from services.router.orders import order_of
from services.wire.errors import InvalidRequest
from services.wire.sampling import DEFAULTS, write_sampling

VOCAB = 10


def request(**fields: Any) -> router_pb2.SequenceRequest:
    asked: dict[str, Any] = {
        "prompt_token_ids": [1, 2, 3],
        "max_new_tokens": 5,
        "sampling": write_sampling(DEFAULTS),
    }
    return router_pb2.SequenceRequest(**asked | fields)


def sampling(**fields: Any) -> common_pb2.SamplingParameters:
    message = write_sampling(DEFAULTS)
    message.MergeFrom(common_pb2.SamplingParameters(**fields))
    return message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"top_logprobs": 21}, "top_logprobs is 21; it must be from 0 to 20"),
        ({"prompt_logprobs": True}, "prompt_logprobs is set, and top_logprobs is not"),
        (
            {"prompt_token_ids": [1] * 7000, "top_logprobs": 18, "prompt_logprobs": True},
            "prompt_logprobs: 7000 tokens with 18 beside each are more than 131072 in all",
        ),
        ({"min_new_tokens": 6}, "min_new_tokens is 6; max_new_tokens is 5"),
        (
            {"min_new_tokens": 1, "stop_token_ids": range(VOCAB)},
            "min_new_tokens: every token that may be drawn ends the sequence",
        ),
        (
            {
                "min_new_tokens": 1,
                "stop_token_ids": [4],
                "sampling": sampling(allowed_token_ids=[4]),
            },
            "min_new_tokens: every token that may be drawn ends the sequence",
        ),
        (
            {"sampling": sampling(logit_bias={10: 1.0})},
            "sampling.logit_bias has 10; the vocabulary ends at 9",
        ),
        (
            {"sampling": sampling(allowed_token_ids=[3, 10])},
            "sampling.allowed_token_ids has 10; the vocabulary ends at 9",
        ),
        (
            {"sampling": sampling(logit_bias={2: 100.5})},
            "sampling.logit_bias[2] is 100.5; it must be from -100 to 100",
        ),
        (
            {"sampling": sampling(logit_bias=dict.fromkeys(range(1025), 0.0))},
            "sampling.logit_bias has 1025 elements; the limit is 1024",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        order_of(request(**fields), VOCAB)
    assert str(refusal.value) == words


def test_an_order_keeps_apart_what_was_generated_elsewhere() -> None:
    order = order_of(
        request(generated_token_ids=[7, 8], min_new_tokens=4, top_logprobs=2, prompt_logprobs=True),
        VOCAB,
    )
    assert (order.prompt, order.num_resumed) == ((1, 2, 3, 7, 8), 2)
    assert (order.max_new_tokens, order.min_new_tokens) == (3, 4)
    assert order.scoring == Scoring(2, 3)


def test_all_of_a_sampling_comes_through_the_wire() -> None:
    asked = sampling(logit_bias={3: 2.5, 1: -1.0}, allowed_token_ids=[5, 1, 5])
    order = order_of(request(sampling=asked), VOCAB)
    assert order.sampling.logit_bias == ((1, -1.0), (3, 2.5))
    assert order.sampling.allowed_token_ids == (1, 5)
