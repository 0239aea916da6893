"""Everything that the draws of a request can depend on, and all that can be told of them."""

from typing import Any

from moesaic.v1 import common_pb2

# Likely enough to be drawn, and allowed: to be withheld by `min_new_tokens`.
STOP_TOKEN = 8


def everything(vocab_size: int) -> dict[str, Any]:
    """Fields of a request to a gateway or to a router, with every parameter of sampling; where it
    stops they say in different ways.
    """
    sampling = common_pb2.SamplingParameters(
        temperature=1.5,
        top_k=0,
        top_p=0.98,
        min_p=0.001,
        seed=11,
        repetition_penalty=1.3,
        presence_penalty=0.4,
        frequency_penalty=0.3,
        logit_bias={STOP_TOKEN: 2.0, 250: -3.0},
        allowed_token_ids=range(0, vocab_size, 2),
    )
    stated = {field.name for field, _ in sampling.ListFields()}
    assert stated == {*sampling.DESCRIPTOR.fields_by_name}, "a parameter is left out"
    return {"sampling": sampling, "top_logprobs": 3, "prompt_logprobs": True}
