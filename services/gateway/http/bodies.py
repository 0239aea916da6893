"""Reads bodies of requests: what every one of them has in common, and what is said of a bad one."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, from_json

from services.gateway.http.errors import BadField

MAX_ERRORS, MAX_ERROR_CHARACTERS = 10, 200
MAX_NAMED, MAX_NAME_CHARACTERS = 20, 64
MAX_UINT32 = 2**32 - 1

TokenId = Annotated[int, Field(ge=0, le=MAX_UINT32)]
Count = Annotated[int, Field(ge=0, le=MAX_UINT32)]
# Of lists without a bound the first element that is wrong says enough: all would take a second of
# the event loop for a megabyte.
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
Objects = Annotated[list[dict[str, Any]], Field(fail_fast=True)]


class Body(BaseModel):
    """An object of a request. Fields that it does not know are kept, to be named."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())

    def unknown(self) -> list[str]:
        """Fields of this very object that nobody knows."""
        return [*(self.model_extra or ())]


Read = TypeVar("Read", bound=Body)
Bytes = bytes | bytearray


def read_body(kind: type[Read], body: Bytes) -> Read:
    """The request that the bytes are. Raises BadField, which names at most ten of the fields that
    are wrong.
    """
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadField(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadField("the body must be a JSON object")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise _complaint(error) from None


def unknown_fields(body: Body) -> list[str]:
    """Fields of the request and of the objects in it that nobody knows, as a header can name them;
    twenty at most.
    """
    names: dict[str, None] = {}
    for name in _unknown(body, ""):
        names[name] = None
        if len(names) == MAX_NAMED:
            break
    return [*names]


def _unknown(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _unknown(each, prefix)
    if isinstance(value, Body):
        for name in value.unknown():
            yield prefix + re.sub(r"[^\w.-]", "?", name, flags=re.ASCII)[:MAX_NAME_CHARACTERS]
        for name in value.model_fields_set & type(value).model_fields.keys():
            yield from _unknown(getattr(value, name), f"{prefix}{name}.")


def _complaint(error: ValidationError) -> BadField:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    said = [_said(one) for one in errors[:MAX_ERRORS]]
    first = errors[0]["loc"]
    return BadField("; ".join(said), str(first[0]) if first else None)


def _said(error: ErrorDetails) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"])
    reason = error["msg"].removeprefix("Value error, ")
    said = f"{path.removeprefix('.')}: {reason}" if path else reason
    return said if len(said) <= MAX_ERROR_CHARACTERS else f"{said[: MAX_ERROR_CHARACTERS - 1]}…"
