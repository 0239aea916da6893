"""Reads a client's request and refuses, naming field and limit, what can never be served."""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.chat_reading import check_chat
from services.gateway.checkpoint import TextCheckpoint
from services.gateway.results import Results, read_results
from services.gateway.tokeniser import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from services.wire.errors import InvalidRequest, NotFound, ServingError, TooLong
from services.wire.quoting import quoted
from services.wire.ranges import check_count
from services.wire.sampling import Sampling, read_sampling

MAX_STOP_STRINGS = 16
MAX_STOP_STRING_CHARACTERS = 512
MAX_STOP_TOKENS = 64
# Of a token's text, as a bound on what is worth tokenising: few texts have as many on average. A
# short text is tokenised in any case.
MAX_TOKEN_BYTES = 8
SHORT_TEXT_BYTES = 4096
# Of a request, beside its prompt: names, stop conditions, numbers.
MAX_OTHER_BYTES = 64 << 10
# A token id as it travels, for the largest there are.
MAX_ID_BYTES = 6
# Random seeds stay where every client's numbers are exact, JSON's included.
SEED_BITS = 53


@dataclass(frozen=True)
class CheckedRequest:
    """A checked request; only what depends on the prompt's tokens is still open."""

    prompt: Prompt
    sampling: Sampling
    max_new_tokens: int | None
    stop_strings: tuple[str, ...]
    # End-of-sequence tokens included, unless the request goes on past them.
    stop_token_ids: frozenset[int]
    return_routed_experts: bool
    trace_detail: int
    priority: int
    results: Results


class RequestReader:
    """Knows the limits of the model and of this gateway; raises InvalidRequest and NotFound.

    A prompt's size is taken once and compared before its contents are looked through. `max_context`
    is asked for the context of the routers that are there, and raises what a request without one
    has to hear.
    """

    def __init__(
        self,
        checkpoint: TextCheckpoint,
        *,
        max_prompt_bytes: int,
        max_context: Callable[[], int],
    ) -> None:
        self._checkpoint = checkpoint
        self._max_prompt_bytes = max_prompt_bytes
        self._max_context = max_context

    def max_request_bytes(self) -> int:
        """What is larger need not be read. Prompts of twice the bytes that the context takes are,
        so that most are refused with what the limit is.
        """
        try:
            of_context = 2 * self._max_text_bytes()
        except ServingError:  # no router says what its context is
            of_context = self._max_prompt_bytes
        return min(self._max_prompt_bytes, of_context) + MAX_OTHER_BYTES

    def generate(self, request: pb.GenerateRequest) -> CheckedRequest:
        """Check a request to generate and fill in what it leaves open."""
        self.check_model(request.model)
        if request.trace_detail not in common_pb2.TraceDetail.values():
            raise InvalidRequest(f"trace_detail: {request.trace_detail} is not one of its values")
        if request.priority not in pb.Priority.values():
            raise InvalidRequest(f"priority: {request.priority} is not one of its values")
        max_new_tokens = (
            request.stop.max_new_tokens if request.stop.HasField("max_new_tokens") else None
        )
        if max_new_tokens == 0:
            raise InvalidRequest("stop.max_new_tokens must be at least 1")
        prompt = self.prompt(request)
        sampling, stop_token_ids = self._draws(request)
        return CheckedRequest(
            prompt=prompt,
            sampling=sampling,
            max_new_tokens=max_new_tokens,
            stop_strings=self._stop_strings(request.stop),
            stop_token_ids=stop_token_ids,
            return_routed_experts=request.return_routed_experts,
            trace_detail=request.trace_detail,
            priority=request.priority or pb.PRIORITY_NORMAL,
            results=read_results(request),
        )

    def check_model(self, name: str) -> None:
        """Refuse a model that is not the one that is served."""
        if name not in ("", self._checkpoint.name):
            raise NotFound(
                f"model: {quoted(name)} is not served here; {self._checkpoint.name!r} is"
            )

    def prompt(self, request: pb.GenerateRequest | pb.TokenizeRequest) -> Prompt:
        """The prompt of a request, checked for all that can be said before it is tokenised."""
        kind = request.WhichOneof("prompt")
        num_bytes = _prompt_bytes(request, kind)
        _check_other_bytes(request, num_bytes)
        if kind == "text":
            return self._text(request.text, num_bytes, is_plain=request.without_special_tokens)
        if kind == "chat":
            return self._chat(request.chat, num_bytes)
        if kind == "token_ids" and isinstance(request, pb.GenerateRequest):
            return self._token_ids(request.token_ids.ids)
        raise InvalidRequest("prompt is not set: one of its fields must be")

    def check_tokens(self, token_ids: Collection[int]) -> None:
        """Refuse a prompt with a token that the tokenizer knows and the model does not."""
        self.check_vocabulary("prompt", token_ids)

    def check_vocabulary(self, field: str, token_ids: Collection[int]) -> None:
        """Refuse a token that the model does not have."""
        largest = max(token_ids, default=0)
        if largest >= self._checkpoint.vocab_size:
            raise InvalidRequest(
                f"{field}: {largest} is no token; the vocabulary has "
                f"{self._checkpoint.vocab_size} ids from 0"
            )

    def _text(self, text: str, num_bytes: int, *, is_plain: bool) -> TextPrompt:
        if not text:
            raise InvalidRequest("text must not be empty")
        self._check_bytes("text", num_bytes)
        return TextPrompt(text, without_special_tokens=is_plain)

    def _chat(self, chat: pb.Chat, num_bytes: int) -> ChatPrompt:
        template_name = self._template_name(chat)
        if not chat.messages:
            raise InvalidRequest("chat.messages must not be empty")
        max_context = self._max_context()
        if len(chat.messages) > max_context:  # each is a token at least
            raise TooLong(
                f"chat.messages has {len(chat.messages)} elements; the context takes "
                f"{max_context} tokens"
            )
        self._check_bytes("chat", num_bytes)
        check_chat(chat)
        return ChatPrompt(chat, template_name)

    def _template_name(self, chat: pb.Chat) -> str:
        try:
            return self._checkpoint.chat_templates.choose(
                chat.template_name, has_tools=bool(chat.tools_json)
            )
        except InvalidRequest as error:
            raise InvalidRequest(
                f"chat: model {self._checkpoint.name!r} {error}; send text"
            ) from error

    def _token_ids(self, token_ids: Collection[int]) -> TokenPrompt:
        if not token_ids:
            raise InvalidRequest("token_ids.ids must not be empty")
        max_context = self._max_context()
        if len(token_ids) > max_context:
            raise TooLong(
                f"token_ids.ids has {len(token_ids)} elements; the context takes {max_context} "
                "tokens, at least one of them for the continuation"
            )
        taken = tuple(token_ids)  # looked through several times, and protobuf's list is slow at it
        self.check_vocabulary("token_ids.ids", taken)
        return TokenPrompt(taken)

    def _check_bytes(self, field: str, num_bytes: int) -> None:
        of_context = self._max_text_bytes()
        if num_bytes > self._max_prompt_bytes:
            raise InvalidRequest(
                f"{field} has {num_bytes} bytes; the limit is {self._max_prompt_bytes}"
            )
        if num_bytes > of_context:
            raise TooLong(
                f"{field} has {num_bytes} bytes; the context of {self._max_context()} tokens takes "
                f"at most {of_context}"
            )

    def _max_text_bytes(self) -> int:
        return max(SHORT_TEXT_BYTES, MAX_TOKEN_BYTES * self._max_context())

    def _draws(self, request: pb.GenerateRequest) -> tuple[Sampling, frozenset[int]]:
        """How tokens are drawn, and which of them end the continuation."""
        sampling = _sampling(request.sampling, self._checkpoint.sampling)
        for field, token_ids in sampling.named_tokens:
            self.check_vocabulary(field, token_ids)
        stop_token_ids = self._stop_token_ids(request.stop)
        if request.stop.min_new_tokens and stop_token_ids.issuperset(
            sampling.allowed_token_ids or range(self._checkpoint.vocab_size)
        ):
            raise InvalidRequest(
                "stop.min_new_tokens: every token that may be drawn ends the continuation"
            )
        return sampling, stop_token_ids

    def _stop_token_ids(self, stop: common_pb2.StopConditions) -> frozenset[int]:
        check_count("stop.stop_token_ids", stop.stop_token_ids, MAX_STOP_TOKENS)
        self.check_vocabulary("stop.stop_token_ids", stop.stop_token_ids)
        eos = () if stop.ignore_eos else self._checkpoint.eos_token_ids
        return frozenset((*stop.stop_token_ids, *eos))

    def _stop_strings(self, stop: common_pb2.StopConditions) -> tuple[str, ...]:
        recommended = () if stop.ignore_eos else self._checkpoint.stop_strings
        return (*_stop_strings(stop.stop_strings), *recommended)


def new_tokens_within(
    *, num_prompt_tokens: int, wanted: int | None, default: int, max_context: int
) -> int:
    """How many tokens to generate: what is wanted, else the default as far as the context leaves
    room.

    Raises TooLong when prompt and continuation can never fit in the context.
    """
    if num_prompt_tokens < 1:
        raise InvalidRequest("the prompt has no tokens")
    room = max_context - num_prompt_tokens
    if room < 1:
        raise TooLong(
            f"the prompt has {num_prompt_tokens} tokens; the context takes {max_context}, "
            "at least one of them for the continuation"
        )
    if wanted is None:
        return min(default, room)
    if wanted > room:
        raise TooLong(
            f"stop.max_new_tokens is {wanted}; with a prompt of {num_prompt_tokens} tokens the "
            "context of "
            f"{max_context} leaves {room}"
        )
    return wanted


def _prompt_bytes(request: pb.GenerateRequest | pb.TokenizeRequest, kind: str | None) -> int:
    """What the prompt of a request takes, of token ids at the most."""
    if kind == "text":
        return len(request.text.encode())
    if kind == "chat":
        return request.chat.ByteSize()
    if kind == "token_ids" and isinstance(request, pb.GenerateRequest):
        return MAX_ID_BYTES * len(request.token_ids.ids)
    return 0


def _check_other_bytes(
    request: pb.GenerateRequest | pb.TokenizeRequest, num_prompt_bytes: int
) -> None:
    """What a request holds beside its prompt, and beside the tokens that it goes on after, stays
    with it as long as it waits: fields that nobody knows, too.
    """
    others = request.ByteSize() - num_prompt_bytes
    if isinstance(request, pb.GenerateRequest):
        others -= MAX_ID_BYTES * len(request.resume.generated_token_ids)
    if others > MAX_OTHER_BYTES:
        raise InvalidRequest(
            f"the request has {others} bytes beside its prompt; the limit is {MAX_OTHER_BYTES}"
        )


def _sampling(asked: common_pb2.SamplingParameters, recommended: Sampling) -> Sampling:
    return read_sampling(asked, replace(recommended, seed=random.randrange(1, 1 << SEED_BITS)))


def _stop_strings(stop_strings: Collection[str]) -> tuple[str, ...]:
    check_count("stop.stop_strings", stop_strings, MAX_STOP_STRINGS)
    for index, stop_string in enumerate(stop_strings):
        if not 1 <= len(stop_string) <= MAX_STOP_STRING_CHARACTERS:
            raise InvalidRequest(
                f"stop.stop_strings[{index}] has {len(stop_string)} characters; "
                f"it must have from 1 to {MAX_STOP_STRING_CHARACTERS}"
            )
    return tuple(stop_strings)
