"""Attributes as the tags of Jaeger's JSON: a key, one of five types and a value."""

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

TagType = Literal["string", "bool", "int64", "float64", "binary"]


@dataclass(frozen=True, slots=True)
class Tag:
    """One attribute."""

    key: str
    type: TagType
    value: str | bool | int | float

    @property
    def text(self) -> str:
        """The value as a search compares it."""
        return str(self.value).lower() if self.type == "bool" else str(self.value)

    def document(self) -> dict[str, Any]:
        """The tag in Jaeger's JSON."""
        return {"key": self.key, "type": self.type, "value": self.value}


def string_tag(key: str, value: str) -> Tag:
    """A tag that is a text."""
    return Tag(key, "string", value)


def tags_of(attributes: Iterable[KeyValue]) -> list[Tag]:
    """OTLP's attributes; a list or a map becomes its JSON, as OpenTelemetry's mapping to Jaeger has
    it.
    """
    return [_tag(attribute.key, attribute.value) for attribute in attributes]


def _tag(key: str, value: AnyValue) -> Tag:
    match value.WhichOneof("value"):
        case "bool_value":
            return Tag(key, "bool", value.bool_value)
        case "int_value":
            return Tag(key, "int64", value.int_value)
        case "double_value" if math.isfinite(value.double_value):  # JSON has no other numbers
            return Tag(key, "float64", value.double_value)
        case "bytes_value":
            return Tag(key, "binary", base64.b64encode(value.bytes_value).decode())
        case "array_value" | "kvlist_value":
            return string_tag(key, json.dumps(_plain(value), ensure_ascii=False))
        case _:
            return string_tag(key, str(_plain(value)))


def _plain(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return ""
        case "array_value":
            return [_plain(item) for item in value.array_value.values]
        case "kvlist_value":
            return {item.key: _plain(item.value) for item in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case kind:
            return getattr(value, kind)
