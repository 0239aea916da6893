"""The fields of requests to generate text, by what becomes of each: honoured, accepted without
effect, or refused by name unless it says what holds anyway.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, FiniteFloat, WithJsonSchema

from services.gateway.http.bodies import MAX_UINT32, Body, Count, TokenId
from services.gateway.http.errors import BadField
from services.gateway.http.messages import Messages, TemplateBody
from services.gateway.requests import MAX_STOP_STRINGS, MAX_STOP_TOKENS
from services.gateway.results import MAX_CHOICES
from services.wire.logprobs import TOP_LOGPROBS
from services.wire.ranges import Range
from services.wire.sampling import BIASES, MAX_BIASES, MAX_SEED, PARAMETERS

MAX_PROMPTS = 128
DEFAULT_TEXT_TOKENS = 16

# Accepted without effect.
HARMLESS = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "parallel_tool_calls"),
    }
)
_NOTHING = (None,)
# Refused, unless their value is one of those: it changes nothing.
REFUSED: Mapping[str, Collection[Any]] = {
    "response_format": (None, {"type": "text"}),
    "structured_outputs": _NOTHING,
    "guided_json": _NOTHING,
    "guided_regex": _NOTHING,
    "guided_choice": _NOTHING,
    "guided_grammar": _NOTHING,
    "guided_decoding_backend": _NOTHING,
    "guided_whitespace_pattern": _NOTHING,
    "regex": _NOTHING,
    "ebnf": _NOTHING,
    "best_of": (None, 1),
    "use_beam_search": (None, False),
    "length_penalty": (None, 1),
    "suffix": (None, ""),
    "bad_words": (None, []),
    "audio": _NOTHING,
    "modalities": (None, ["text"]),
    "functions": (None, []),
    "function_call": (None, "none"),
    "web_search_options": _NOTHING,
    "chat_template": _NOTHING,
}
INSTEAD = "structured_outputs took their place, and is not served yet either"


class StreamOptions(Body):
    """What a stream tells besides."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


def _within(allowed: Range) -> Any:
    if allowed.is_above:
        return Field(gt=allowed.least, le=allowed.most)
    return Field(ge=allowed.least, le=allowed.most)


def _allowed(name: str) -> Any:
    """The range of one of the parameters of sampling."""
    return _within(PARAMETERS[name].allowed)


def _stop(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _few_biases(value: Any) -> Any:
    """Checked before each is, as elsewhere for lists: many that are wrong would all be named."""
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        raise ValueError(f"it has {len(value)} tokens; the limit is {MAX_BIASES}")
    return value


class GenerationBody(Body):
    """What chats and texts have in common."""

    refused: ClassVar[Mapping[str, Collection[Any]]] = REFUSED

    model: str | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[FiniteFloat, _allowed("temperature")] | None = None
    top_p: Annotated[FiniteFloat, _allowed("top_p")] | None = None
    # -1 means all, too.
    top_k: Annotated[int, Field(ge=-1, le=MAX_UINT32)] | None = None
    min_p: Annotated[FiniteFloat, _allowed("min_p")] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=MAX_SEED)] | None = None
    presence_penalty: Annotated[FiniteFloat, _allowed("presence_penalty")] | None = None
    frequency_penalty: Annotated[FiniteFloat, _allowed("frequency_penalty")] | None = None
    repetition_penalty: Annotated[FiniteFloat, _allowed("repetition_penalty")] | None = None
    logit_bias: (
        Annotated[
            dict[TokenId, Annotated[FiniteFloat, _within(BIASES)]],
            BeforeValidator(_few_biases),
        ]
        | None
    ) = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=8192)] | None = None
    stop: Annotated[
        Annotated[list[str], Field(max_length=MAX_STOP_STRINGS)] | None,
        BeforeValidator(_stop),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOP_STRINGS},
                    {"type": "null"},
                ]
            }
        ),
    ] = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKENS)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Count | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    return_routed_experts: bool | None = None
    include_metrics: bool | None = None
    # With the number of a prompt it is at most 64 characters long.
    request_id: Annotated[str, Field(max_length=60)] | None = None
    priority: int | None = None

    def unknown(self) -> list[str]:
        """Fields that are neither honoured nor harmless nor refused."""
        known = HARMLESS | self.refused.keys()
        return [name for name in self.model_extra or () if name not in known]

    def check(self) -> None:
        """Raises BadField for what is refused by name, and for what contradicts itself."""
        for name, value in (self.model_extra or {}).items():
            if name in self.refused and not _is_neutral(value, self.refused[name]):
                instead = f"; {INSTEAD}" if name.startswith("guided_") else ""
                raise BadField(f"{name} is not served{instead}", name)
        if self.stream_options is not None and not self.stream:
            raise BadField("stream_options goes with stream alone", "stream_options")


class ChatBody(TemplateBody, GenerationBody):
    """A request to /v1/chat/completions."""

    refused: ClassVar[Mapping[str, Collection[Any]]] = {
        **REFUSED,
        "echo": (None, False),
        "add_special_tokens": (None, False),
    }

    messages: Messages
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, _within(TOP_LOGPROBS)] | None = None
    tool_choice: Any = None

    def check(self) -> None:
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise BadField("top_logprobs goes with logprobs alone", "top_logprobs")
        if self.tool_choice not in (None, "none", "auto"):
            raise BadField("tool_choice: calls of tools are not served; none is", "tool_choice")
        if self.tools and self.tool_choice != "none":
            raise BadField("tools: calls of tools are not served; tool_choice none is", "tools")


def _prompt(value: Any) -> Any:
    """Checked by hand: of a long list that is wrong the first element is enough to say so."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError("it should be a text, token ids, or a list of either")
    if _is_ids(value):
        return value
    if len(value) > MAX_PROMPTS:
        raise ValueError(f"it has {len(value)} prompts; the limit is {MAX_PROMPTS}")
    kind = str if isinstance(value[0], str) else list
    for index, each in enumerate(value):
        if not isinstance(each, kind) or (isinstance(each, list) and not _is_ids(each)):
            raise ValueError(f"element {index} is neither a text nor token ids, as the others are")
    return value


def _is_ids(value: list[Any]) -> bool:
    return all(type(each) is int and 0 <= each <= MAX_UINT32 for each in value)


IDS_SCHEMA: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}}
PROMPT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS},
        IDS_SCHEMA,
        {"type": "array", "items": IDS_SCHEMA, "minItems": 1, "maxItems": MAX_PROMPTS},
    ]
}


class TextBody(GenerationBody):
    """A request to /v1/completions."""

    prompt: Annotated[Any, BeforeValidator(_prompt), WithJsonSchema(PROMPT_SCHEMA)]
    max_tokens: Count | None = DEFAULT_TEXT_TOKENS
    logprobs: Annotated[int, _within(TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    add_special_tokens: bool | None = None

    def check(self) -> None:
        super().check()
        if self.max_tokens == 0 and not self.echo:
            raise BadField("max_tokens is 0, which goes with echo alone", "max_tokens")

    @property
    def prompts(self) -> list[str | list[int]]:
        """One for each continuation; at least one."""
        is_one = isinstance(self.prompt, str) or _is_ids(self.prompt)
        return [self.prompt] if is_one else self.prompt


def _is_neutral(value: Any, neutral: Collection[Any]) -> bool:
    # False is no 0 here, and true no 1.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)
