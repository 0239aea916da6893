"""A checkpoint's JSON is read field by field, and what is not of its kind is refused in one line
that names it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from services.metadata.fields import Fields
from services.metadata.refusals import UnusableModel
from services.wire.ranges import Range

SHARE = Range(0, 1)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "config.json"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not readable JSON"),
        (b"\xff", "is not readable JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "is not readable JSON: Unexpected UTF-8 BOM"),
        (b'{"a": %s}' % (b"9" * 5000), "is not readable JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[]", "holds no JSON object"),
        (b"null", "holds no JSON object"),
    ],
)
def test_a_file_that_is_no_object_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match=rf"config\.json.*{message}") as refusal:
        Fields.read(written(tmp_path, content))
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named_unless_it_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(UnusableModel, match=r"config\.json is missing"):
        Fields.read(path)
    assert Fields.read(path, optional=True).values == {}
    path.symlink_to("nowhere")  # as an interrupted download leaves it
    with pytest.raises(UnusableModel, match="a link to a file that is not there"):
        Fields.read(path, optional=True)


def test_null_is_as_if_the_field_were_not_there(tmp_path: Path) -> None:
    for content in (b"{}", json.dumps(dict.fromkeys("abcdefg")).encode()):
        fields = Fields.read(written(tmp_path, content))
        assert (fields.number("a"), fields.whole("b"), fields.wholes("c"), fields.flag("d")) == (
            None,
        ) * 4
        assert (fields.text("e"), fields.texts("f"), fields.inner("g").values) == (None, (), {})


def test_numbers_may_be_written_in_either_way(tmp_path: Path) -> None:
    fields = Fields.read(
        written(tmp_path, b'{"a": 1, "b": 20.0, "c": [0, 2.0], "d": 7, "e": 0.5, "e": 0.25}')
    )
    assert (fields.number("a", SHARE), fields.whole("b")) == (1, 20)
    assert (fields.wholes("c"), fields.wholes("d")) == ((0, 2), (7,))
    assert fields.number("e", SHARE) == 0.25  # the last one counts, as everywhere


@pytest.mark.parametrize(
    "value", ["0.5", True, [], {}, 1.5, -0.1, float("nan"), float("inf"), 10**400]
)
def test_what_is_no_number_of_the_range_is_refused(value: Any, tmp_path: Path) -> None:
    fields = Fields.read(written(tmp_path, json.dumps({"top_p": value}).encode()))
    with pytest.raises(
        UnusableModel, match=r"config\.json: top_p is .*; it must be a number from 0 to 1$"
    ) as refusal:
        fields.number("top_p", SHARE)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    ("reader", "value", "right"),
    [
        ("whole", 0.5, "a whole number"),
        ("whole", False, "a whole number"),
        ("wholes", ["x"], "a whole number or a list of them"),
        ("wholes", [[1]], "a whole number or a list of them"),
        ("wholes", [None], "a whole number or a list of them"),
        ("flag", "true", "true or false"),
        ("flag", 1, "true or false"),
        ("text", 5, "a text"),
        ("text", "\ud800", "a text"),
        ("texts", ["a", ""], "a text or a list of them, none of them empty"),
        ("inner", "x", "an object"),
        ("inner", [], "an object"),
    ],
)
def test_what_is_of_another_kind_is_refused(
    reader: str, value: Any, right: str, tmp_path: Path
) -> None:
    fields = Fields.read(written(tmp_path, json.dumps({"field": value}).encode()))
    with pytest.raises(UnusableModel, match=rf"config\.json: field is .*; it must be {right}$"):
        getattr(fields, reader)("field")


def test_a_field_within_an_object_is_named_with_it() -> None:
    with pytest.raises(UnusableModel, match=r"config\.json: text_config: vocab_size is 'x'"):
        Fields("config.json", {"text_config": {"vocab_size": "x"}}).inner("text_config").whole(
            "vocab_size"
        )
