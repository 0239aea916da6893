"""OpenTelemetry's environment variables, read one at a time; what is wrong with them is gathered on
the way.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

# The name of a header of HTTP and of metadata of gRPC alike.
_HEADER_NAME = re.compile(r"[0-9A-Za-z_.-]+")
# What says how a message is written, which whoever sends it knows.
_FRAMING = frozenset({"content-length", "content-encoding", "transfer-encoding"})
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
# Most milliseconds of any interval.
MAX_NUMBER = 1e9
# With a scheme before them or without.
_CREDENTIALS = re.compile(r"(//|^)[^/]*@")


class Found(NamedTuple):
    """A variable that is set: its name and its value without spaces around it."""

    name: str
    value: str


class OtelVariables:
    """Reads variables as the specification has it: an empty one is unset, choices are told apart
    without case.

    Where a value cannot be followed, `refusals` gets a line if it decides where data goes and in
    which form; else the default holds and `remarks` gets the line.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.refusals: list[str] = []
        self.remarks: list[str] = []

    def find(self, *names: str) -> Found | None:
        """The first of these variables that is set."""
        for name in names:
            # A byte that is no UTF-8 is no text that could be sent.
            value = self._environment.get(name, "").encode("utf-8", "replace").decode().strip()
            if value:
                return Found(name, value)
        return None

    def text(self, *names: str) -> str:
        """The value of the first one set; empty for none."""
        found = self.find(*names)
        return "" if found is None else found.value

    def refuse(self, found: Found, reason: str) -> None:
        """The value cannot be followed, and must not be passed over."""
        value = _CREDENTIALS.sub(r"\1…@", found.value)
        self.refusals.append(f"{found.name}: {value!r}: {reason}")

    def remark(self, found: Found, reason: str, taken: object) -> None:
        """The value cannot be followed, and something else holds."""
        self.remarks.append(f"{found.name}: {found.value!r}: {reason}; {taken} is taken")

    def choice(self, choices: Sequence[str], default: str, *names: str) -> str:
        """One of the choices, the first of which stands in where another value is refused."""
        found = self.find(*names)
        if found is None or found.value.lower() in choices:
            return default if found is None else found.value.lower()
        self.refuse(found, should_be(choices))
        return choices[0]

    def preference(self, choices: Sequence[str], default: str, *names: str) -> str:
        """One of the choices; another value is remarked on."""
        found = self.find(*names)
        if found is None or found.value.lower() in choices:
            return default if found is None else found.value.lower()
        self.remark(found, should_be(choices), default)
        return default

    def flag(self, *names: str) -> bool:
        """Whether it is `true`; other values than `true` and `false` are remarked on."""
        return self.preference(("false", "true"), "false", *names) == "true"

    def number(
        self, default: float, *names: str, least: float = 0, most: float = MAX_NUMBER
    ) -> float:
        """A number between the two; another value is remarked on."""
        found = self.find(*names)
        if found is None:
            return default
        try:
            value = float(found.value)
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return value
        self.remark(found, f"it should be a number from {least:g} to {most:g}", f"{default:g}")
        return default

    def headers(self, *names: str) -> tuple[tuple[str, str], ...]:
        """`key=value,key=value` with percent-encoded values; what is none of that is refused,
        without quoting it.
        """
        found = self.find(*names)
        if found is None:
            return ()
        headers = {}
        for index, pair in enumerate(filter(None, map(str.strip, found.value.split(","))), start=1):
            key, equals, value = (part.strip() for part in pair.partition("="))
            key, value = key.lower(), unquote(value).strip()
            if (
                not equals
                or not _HEADER_NAME.fullmatch(key)
                or key.endswith("-bin")
                or not _PRINTABLE.fullmatch(value)
            ):
                self.refusals.append(
                    f"{found.name}: header {index} should be key=value in printable ASCII"
                )
                continue
            if key in _FRAMING:
                self.refusals.append(
                    f"{found.name}: header {index} is {key}, which is said by itself; it should be "
                    "left out"
                )
                continue
            headers[key] = value
        return tuple(headers.items())

    def attributes(self, name: str) -> dict[str, str]:
        """`key=value,key=value` with percent-encoded values; where a part is none of that, the
        whole is left out.
        """
        found = self.find(name)
        if found is None:
            return {}
        attributes = {}
        for pair in filter(None, map(str.strip, found.value.split(","))):
            key, equals, value = (unquote(part.strip()) for part in pair.partition("="))
            if not equals or not key:
                self.remark(Found(name, pair), "it should be key=value", "none of the attributes")
                return {}
            attributes[key] = value
        return attributes


def should_be(choices: Sequence[str]) -> str:
    """A sentence that names the choices."""
    quoted = [repr(choice) for choice in choices]
    return f"it should be {', '.join(quoted[:-1])} or {quoted[-1]}"
