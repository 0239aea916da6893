"""Reads a checkpoint's JSON files field by field: a value of another type or out of range is
refused by its name.
"""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from services.metadata.bounded_files import read_bounded
from services.metadata.refusals import UnusableModel, in_one_line
from services.wire.ranges import Range

ANY = Range()
# Twice what the index of a thousand times a hundred experts has.
MAX_BYTES = 32 << 20


class Fields:
    """The object of a JSON file, or one within it.

    A field that is null is as if it were not there: each reader then returns None, or what is empty
    of its kind. Each raises UnusableModel, naming file, field, value and what would be right, for a
    value that is not of its kind.
    """

    def __init__(self, source: str, values: Mapping[str, Any]) -> None:
        self.source = source
        self.values = values

    @classmethod
    def read(cls, path: Path, *, optional: bool = False) -> "Fields":
        """The object in the file; where there is none, UnusableModel is raised, or with `optional`
        it is empty.
        """
        values: Any = {}
        try:
            values = json.loads(read_bounded(path, MAX_BYTES).decode())
        except FileNotFoundError:
            if path.is_symlink():  # as an interrupted download leaves it
                raise UnusableModel(f"{path} is a link to a file that is not there") from None
            if not optional:
                raise UnusableModel(f"{path} is missing") from None
        except RecursionError:
            raise UnusableModel(
                f"{path} is not readable JSON: its values are nested too deep"
            ) from None
        except (OSError, ValueError) as error:
            raise UnusableModel(f"{path} is not readable JSON: {in_one_line(error)}") from error
        if not isinstance(values, dict):
            raise UnusableModel(f"{path} holds no JSON object")
        return cls(str(path), values)

    def inner(self, name: str) -> "Fields":
        """The object in the field, an empty one where there is none."""
        value = self.values.get(name)
        if not isinstance(value, dict | None):
            self.refuse(name, "an object")
        return Fields(f"{self.source}: {name}", value or {})

    def number(self, name: str, allowed: Range = ANY) -> float | None:
        """The number in the field."""
        value = self.values.get(name)
        if value is not None and not (_is_number(value) and allowed.holds(value)):
            self.refuse(name, f"a number {allowed}".rstrip())
        return None if value is None else float(value)

    def whole(self, name: str, allowed: Range = ANY) -> int | None:
        """The whole number in the field, which may be written as 20.0."""
        value = self.values.get(name)
        if value is not None and not (_is_whole(value) and allowed.holds(value)):
            self.refuse(name, f"a whole number {allowed}".rstrip())
        return None if value is None else int(value)

    def wholes(self, name: str) -> tuple[int, ...] | None:
        """The whole numbers in the field: one, or a list of them."""
        values = self._one_or_several(name)
        if values is not None and not all(_is_whole(value) for value in values):
            self.refuse(name, "a whole number or a list of them")
        return None if values is None else tuple(int(value) for value in values)

    def flag(self, name: str) -> bool | None:
        """The truth in the field."""
        value = self.values.get(name)
        if not isinstance(value, bool | None):
            self.refuse(name, "true or false")
        return value

    def text(self, name: str) -> str | None:
        """The text in the field."""
        value = self.values.get(name)
        if value is not None and not _is_text(value):
            self.refuse(name, "a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts in the field: one, or a list of them."""
        values = self._one_or_several(name) or []
        if not all(_is_text(value) and value for value in values):
            self.refuse(name, "a text or a list of them, none of them empty")
        return tuple(values)

    def refuse(self, name: str, right: str) -> NoReturn:
        """Raise UnusableModel that says of the field's value what would be right."""
        raise UnusableModel(
            f"{self.source}: {name} is {reprlib.repr(self.values.get(name))}; it must be {right}"
        )

    def _one_or_several(self, name: str) -> list[Any] | None:
        value = self.values.get(name)
        return value if isinstance(value, list | None) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _is_text(value: Any) -> bool:
    # JSON can write half a surrogate pair, which nothing can send on.
    return isinstance(value, str) and not any(
        "\ud800" <= character <= "\udfff" for character in value
    )
