"""Failures as HTTP has them: a status, and a document as OpenAI's clients read it."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from services.runtime.boundary import MAX_RETRY_SECONDS
from services.wire.errors import (
    BadState,
    DeadlinePassed,
    InvalidRequest,
    NotFound,
    Outdated,
    Overloaded,
    PermissionDenied,
    ServingError,
    TooLong,
    Unauthenticated,
    Unavailable,
)

INVALID, SERVER = "invalid_request_error", "server_error"
RETRY_STATUSES = (429, 503)
DEFAULT_RETRY_SECONDS = 1.0
# How a field of GenerateRequest is called over HTTP.
HTTP_NAMES = {
    "text": "prompt",
    "token_ids.ids": "prompt",
    "token_ids": "tokens",
    "prompt": "prompt",
    "chat": "messages",
    "chat.messages": "messages",
    "chat.tools_json": "tools",
    "chat.documents_json": "documents",
    "chat.template_arguments_json": "chat_template_kwargs",
    "chat.continue_final_message": "continue_final_message",
    "chat.add_generation_prompt": "add_generation_prompt",
    "model": "model",
    "num_choices": "n",
    "request_id": "request_id",
    "top_logprobs": "top_logprobs",
    "prompt_logprobs": "echo",
    "stop.max_new_tokens": "max_tokens",
    "stop.min_new_tokens": "min_tokens",
    "stop.stop_strings": "stop",
    "stop.stop_token_ids": "stop_token_ids",
}
SAMPLING = "sampling."
_PATH = re.compile(r"[a-z_]+(?:\.[a-z_]+)*")


class BadField(InvalidRequest):
    """A field of a request over HTTP is not what it has to be."""

    def __init__(
        self, message: str, param: str | None = None, *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.param = param


class TooLarge(InvalidRequest):
    """The body has more bytes than are read."""


class WrongType(InvalidRequest):
    """The body is none by its type."""


class WrongExpectation(InvalidRequest):
    """A client expects something that is not done."""


class PageRefused(PermissionDenied):
    """A browser's page calls that may not."""


class UnknownRoute(NotFound):
    """There is nothing at this path, or not by this method."""


class WrongMethod(UnknownRoute):
    """There is something at this path, by another method."""


@dataclass(frozen=True)
class _Kind:
    status: int
    type: str = INVALID
    code: str | None = None


# The first that an error is one of.
KINDS: dict[type[ServingError], _Kind] = {
    TooLong: _Kind(400, code="context_length_exceeded"),
    TooLarge: _Kind(413, code="request_too_large"),
    WrongType: _Kind(415, code="unsupported_media_type"),
    WrongExpectation: _Kind(417, code="expectation_failed"),
    InvalidRequest: _Kind(400),
    Unauthenticated: _Kind(401, code="invalid_api_key"),
    PageRefused: _Kind(403, code="origin_not_allowed"),
    PermissionDenied: _Kind(403, code="invalid_api_key"),
    WrongMethod: _Kind(405, code="method_not_allowed"),
    UnknownRoute: _Kind(404, code="unknown_url"),
    NotFound: _Kind(404, code="model_not_found"),
    Outdated: _Kind(409, code="request_replaced"),
    Overloaded: _Kind(429, "rate_limit_error", "rate_limit_exceeded"),
    BadState: _Kind(503, SERVER, "service_unavailable"),
    Unavailable: _Kind(503, SERVER, "service_unavailable"),
    DeadlinePassed: _Kind(504, SERVER, "deadline_exceeded"),
    ServingError: _Kind(500, SERVER, "internal_error"),
}


@dataclass(frozen=True)
class Failure:
    """What a client is told of an error."""

    status: int
    document: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The document as it travels."""
        return json.dumps(self.document).encode()


def failure_told(error: ServingError) -> Failure:
    """The status, the document and the headers for an error."""
    kind = next(kind for one, kind in KINDS.items() if isinstance(error, one))
    message, param = in_http_words(str(error))
    if isinstance(error, BadField):
        param = error.param
    elif isinstance(error, NotFound) and not isinstance(error, UnknownRoute):
        param = "model"
    document = {"message": message, "type": kind.type, "param": param, "code": kind.code}
    return Failure(kind.status, {"error": document}, _headers(kind.status, error))


def in_http_words(message: str) -> tuple[str, str | None]:
    """A message whose first word may be a field of GenerateRequest, with its name over HTTP in its
    place; and that name.
    """
    path = _PATH.match(message)
    if path is None:
        return message, None
    name = HTTP_NAMES.get(path[0])
    if name is None and path[0].startswith(SAMPLING):
        name = path[0].removeprefix(SAMPLING)
    return (message, None) if name is None else (name + message[path.end() :], name)


def _headers(status: int, error: ServingError) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if status not in RETRY_STATUSES:
        return {}
    wanted = error.retry_after_seconds
    seconds = min(MAX_RETRY_SECONDS, DEFAULT_RETRY_SECONDS if wanted is None else max(0.0, wanted))
    # Whole seconds are what HTTP knows; OpenAI's clients read the other one first.
    return {
        "Retry-After": str(max(1, math.ceil(seconds))),
        "retry-after-ms": str(round(seconds * 1000)),
    }
