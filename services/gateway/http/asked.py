"""What bodies of requests ask for, read from their bytes: all that the routes need of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moesaic.v1 import generation_pb2 as pb
from services.gateway.http.bodies import Bytes, read_body, unknown_fields
from services.gateway.http.errors import BadField
from services.gateway.http.fields import ChatBody, GenerationBody, TextBody
from services.gateway.http.messages import written_chat
from services.gateway.http.token_bodies import DetokenizeBody, TokenizeBody
from services.gateway.http.translation import chat_request, text_requests
from services.gateway.http.wanted import Wanted


@dataclass(frozen=True)
class Asked:
    """Of any route. `unknown` are fields that nobody knows."""

    unknown: Sequence[str]


@dataclass(frozen=True)
class AskedText(Asked):
    """To generate text: a request for each prompt."""

    requests: Sequence[pb.GenerateRequest]
    num_choices: int
    wanted: Wanted
    is_stream: bool
    # Empty where it has none.
    name: str


@dataclass(frozen=True)
class AskedTokens(Asked):
    """For the tokens of a prompt, with their texts or without."""

    request: pb.TokenizeRequest
    with_texts: bool


@dataclass(frozen=True)
class AskedDetokenised(Asked):
    """For the text of tokens."""

    request: pb.DetokenizeRequest


def read_chat(body: Bytes) -> AskedText:
    """A chat. Raises BadField, as all of these do."""
    chat = read_body(ChatBody, body)
    return _asked(chat, [chat_request(chat)])


def read_text(body: Bytes) -> AskedText:
    """One text or several."""
    text = read_body(TextBody, body)
    return _asked(text, text_requests(text))


def read_tokenize(body: Bytes) -> AskedTokens:
    """A text or a conversation to be tokenised."""
    asked = read_body(TokenizeBody, body)
    if (asked.prompt is None) == (asked.messages is None):
        raise BadField("either prompt or messages must be set", "prompt")
    request = pb.TokenizeRequest(
        model=asked.model or "", without_special_tokens=asked.add_special_tokens is False
    )
    if asked.messages is None:
        request.text = asked.prompt or ""
    elif asked.add_special_tokens:
        raise BadField("add_special_tokens goes with prompt alone", "add_special_tokens")
    else:
        request.chat.CopyFrom(written_chat(asked.messages, asked))
    return AskedTokens(unknown_fields(asked), request, bool(asked.return_token_strs))


def read_detokenize(body: Bytes) -> AskedDetokenised:
    """Token ids to be read as text."""
    asked = read_body(DetokenizeBody, body)
    request = pb.DetokenizeRequest(model=asked.model or "", token_ids=asked.tokens)
    return AskedDetokenised(unknown_fields(asked), request)


# By their names.
READERS: Mapping[str, Callable[[Bytes], Any]] = {
    read.__name__: read for read in (read_chat, read_text, read_tokenize, read_detokenize)
}


def _asked(body: GenerationBody, requests: Sequence[pb.GenerateRequest]) -> AskedText:
    return AskedText(
        unknown=unknown_fields(body),
        requests=requests,
        num_choices=body.n or 1,
        wanted=Wanted.of(body),
        is_stream=bool(body.stream),
        name=body.request_id or "",
    )
