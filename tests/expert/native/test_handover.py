"""Python and C number what they hand to each other alike."""

import re
from enum import IntEnum
from pathlib import Path

import pytest

from services.expert.plane import Event
from services.expert.plane_stream import Command

HEADER = Path(__file__).parents[3] / "services/expert/native/handover.h"


@pytest.mark.parametrize(("kind", "name"), [(Event, "event_kind"), (Command, "command_kind")])
def test_both_sides_number_alike(kind: type[IntEnum], name: str) -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    (body,) = re.findall(rf"enum {name} {{(.*?)}};", text, flags=re.DOTALL)
    numbers: dict[str, int] = {}
    for entry in filter(None, map(str.strip, body.split(","))):
        word, _, number = entry.partition(" = ")
        numbers[word] = int(number) if number else len(numbers)
    assert numbers == {one.name: one.value for one in kind}
