"""The sampling parameters: names, defaults, limits, meanings, and their way to and from protobuf.

Gateway, router, command line and docs are made from this table. A new parameter is a field of
`SamplingParameters` in common.proto, a field here, and what the sampler does with it. What names
tokens is no number, and has its own limits below.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_type_hints

from moesaic.v1 import common_pb2
from services.wire.errors import InvalidRequest
from services.wire.ranges import Range, check_count, number_text

SHARES = Range(0, 1)
OF_COUNTS = Range(-2, 2)
BIASES = Range(-100, 100)
MAX_BIASES = 1024
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Parameter:
    """What there is to say of a parameter besides its name, its type and its default."""

    allowed: Range
    meaning: str
    # A gateway of a version before it does not send it; the default then stands in.
    came_later: bool = False
    # A checkpoint's generation_config.json may say it where the request does not.
    is_recommendable: bool = True


@dataclass(frozen=True)
class Sampling:
    """How a sequence's tokens are drawn; by default from all tokens as likely as the model has
    them.
    """

    temperature: Annotated[
        float, Parameter(Range(0, 100), "divides the logits; 0 takes the most likely token")
    ] = 1.0
    top_k: Annotated[
        int, Parameter(Range(0, 2**32 - 1), "keep the k likeliest tokens; 0 keeps all")
    ] = 0
    top_p: Annotated[
        float,
        Parameter(Range(0, 1, is_above=True), "keep the likeliest tokens up to this probability"),
    ] = 1.0
    min_p: Annotated[
        float, Parameter(SHARES, "drop tokens below this share of the likeliest one")
    ] = 0.0
    seed: Annotated[
        int,
        Parameter(
            Range(0, MAX_SEED), "seed of the draws; else a random one", is_recommendable=False
        ),
    ] = 0
    repetition_penalty: Annotated[
        float,
        Parameter(
            Range(0, 100, is_above=True),
            "divides the logits of tokens that are there already",
            came_later=True,
        ),
    ] = 1.0
    presence_penalty: Annotated[
        float,
        Parameter(
            OF_COUNTS,
            "taken off the logits of tokens that the continuation has already",
            came_later=True,
            is_recommendable=False,
        ),
    ] = 0.0
    frequency_penalty: Annotated[
        float,
        Parameter(
            OF_COUNTS,
            "taken off the logits of the continuation's tokens, times how often each is there",
            came_later=True,
            is_recommendable=False,
        ),
    ] = 0.0
    # Tokens, ascending, and what is added to their logits.
    logit_bias: tuple[tuple[int, float], ...] = ()
    # Ascending; empty for all tokens.
    allowed_token_ids: tuple[int, ...] = ()

    @property
    def named_tokens(self) -> Iterable[tuple[str, tuple[int, ...]]]:
        """The tokens that it names, by field."""
        yield "sampling.logit_bias", tuple(token for token, _ in self.logit_bias)
        yield "sampling.allowed_token_ids", self.allowed_token_ids


DEFAULTS = Sampling()
PARAMETERS: Mapping[str, Parameter] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Sampling, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}
RECOMMENDABLE = {name: each for name, each in PARAMETERS.items() if each.is_recommendable}


def is_whole(name: str) -> bool:
    """Whether the parameter's values are whole numbers."""
    return isinstance(getattr(DEFAULTS, name), int)


def read_sampling(
    message: common_pb2.SamplingParameters, defaults: Sampling = DEFAULTS
) -> Sampling:
    """What the message says, and `defaults` for what it leaves open.

    Raises InvalidRequest, naming field, value and limits.
    """
    sampling = replace(defaults, **_stated(message))
    for name, parameter in PARAMETERS.items():
        value = getattr(sampling, name)
        if not parameter.allowed.holds(value):
            raise InvalidRequest(
                f"sampling.{name} is {number_text(value)}; it must be {parameter.allowed}"
            )
    _check_biases(sampling.logit_bias)
    return sampling


def read_complete_sampling(message: common_pb2.SamplingParameters) -> Sampling:
    """What the message says, which leaves nothing open.

    Raises InvalidRequest, naming field, value and limits.
    """
    stated = _stated(message)
    for name, parameter in PARAMETERS.items():
        if name not in stated and not parameter.came_later:
            raise InvalidRequest(f"sampling.{name} is not set")
    return read_sampling(message)


def write_sampling(sampling: Sampling) -> common_pb2.SamplingParameters:
    """The message that says all of it, but for what came later and does nothing here."""
    stated = {
        name: value
        for name, value in vars(sampling).items()
        if name in PARAMETERS
        and not (PARAMETERS[name].came_later and value == getattr(DEFAULTS, name))
    }
    message = common_pb2.SamplingParameters(**stated, allowed_token_ids=sampling.allowed_token_ids)
    message.logit_bias.update(sampling.logit_bias)
    return message


def _check_biases(biases: tuple[tuple[int, float], ...]) -> None:
    check_count("sampling.logit_bias", biases, MAX_BIASES)
    for token, bias in biases:
        if not BIASES.holds(bias):
            raise InvalidRequest(
                f"sampling.logit_bias[{token}] is {number_text(bias)}; it must be {BIASES}"
            )


def _stated(message: common_pb2.SamplingParameters) -> dict[str, Any]:
    stated = {field.name: value for field, value in message.ListFields()}
    if "logit_bias" in stated:
        stated["logit_bias"] = tuple(sorted(message.logit_bias.items()))
    if "allowed_token_ids" in stated:
        stated["allowed_token_ids"] = tuple(sorted({*message.allowed_token_ids}))
    return stated
