"""The flags of `moesaic generate` that name tokens, and that say when to end and what to return."""

from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt
from pydantic_settings import BaseSettings

from moesaic.v1 import generation_pb2
from services.runtime.settings import OnePerFlag
from services.wire.logprobs import TOP_LOGPROBS
from services.wire.ranges import Range
from services.wire.sampling import BIASES, MAX_BIASES

TOKENS = Range(0, 2**32 - 1)


def read_bias(text: str) -> tuple[int, float]:
    """A token and what is added to its logit, of TOKEN=BIAS; raises ValueError."""
    token, _, number = text.partition("=")
    try:
        read = int(token), float(number)
    except ValueError:
        raise ValueError(f"{text!r} is not TOKEN=BIAS, such as 50256=-100") from None
    if not TOKENS.holds(read[0]) or not BIASES.holds(read[1]):
        raise ValueError(f"{text!r}: a token is {TOKENS}, a bias {BIASES}")
    return read


def _checked_bias(text: str) -> str:
    read_bias(text)
    return text


TokenId = Annotated[int, Field(ge=TOKENS.least, le=TOKENS.most)]


class ResultFlags(BaseSettings):
    """What is left out is left to the server."""

    logit_bias: Annotated[list[Annotated[str, AfterValidator(_checked_bias)]], OnePerFlag] = Field(
        [],
        max_length=MAX_BIASES,
        description="TOKEN=BIAS: add this, from -100 to 100, to the logit of a token; may be given "
        "several times",
    )
    allowed_token_ids: Annotated[list[TokenId], OnePerFlag] = Field(
        [], description="draw no other tokens than this; may be given several times"
    )
    stop_token_ids: Annotated[list[TokenId], OnePerFlag] = Field(
        [], max_length=64, description="end at this token; may be given several times"
    )
    min_new_tokens: NonNegativeInt = Field(
        0, le=TOKENS.most, description="generate so many before anything ends the text"
    )
    include_stop_string: bool = Field(False, description="show the stop text that ended the text")
    top_logprobs: NonNegativeInt | None = Field(
        None,
        le=TOP_LOGPROBS.most,
        description="with --json: how likely each token was, and so many of the likeliest",
    )
    prompt_logprobs: bool = Field(
        False, description="with --json and --top-logprobs: the same of the prompt's tokens"
    )
    num_choices: PositiveInt = Field(
        1, le=128, description="continuations, each with the seed after that of the one before"
    )
    keep_special_tokens: bool = Field(False, description="show the text of special tokens")
    without_special_tokens: bool = Field(
        False, description="read the prompt without the special tokens that the tokenizer adds"
    )


def say_results(request: generation_pb2.GenerateRequest, settings: ResultFlags) -> None:
    """Write into the request what the settings say."""
    if settings.logit_bias:
        request.sampling.logit_bias.update(read_bias(each) for each in settings.logit_bias)
    if settings.allowed_token_ids:
        request.sampling.allowed_token_ids.extend(settings.allowed_token_ids)
    request.stop.stop_token_ids.extend(settings.stop_token_ids)
    request.stop.min_new_tokens = settings.min_new_tokens
    request.stop.include_stop_string = settings.include_stop_string
    if settings.top_logprobs is not None:
        request.top_logprobs = settings.top_logprobs
    request.prompt_logprobs = settings.prompt_logprobs
    if settings.num_choices > 1:
        request.num_choices = settings.num_choices
    request.keep_special_tokens = settings.keep_special_tokens
    request.without_special_tokens = settings.without_special_tokens
