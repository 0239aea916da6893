"""The files that a gateway and a router both read, told apart by what they say."""

import json
from pathlib import Path

import pytest

from services.wire.text_digest import text_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"vocab_size": 3, "model_type": "olmoe"}')
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    return tmp_path


def test_the_layout_of_a_configuration_and_other_files_do_not_matter(folder: Path) -> None:
    before = text_digest(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "olmoe", "vocab_size": 3}, indent=8))
    (folder / "chat_template.jinja").write_text("another")
    assert len(before) == 32
    assert text_digest(folder) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", '{"vocab_size": 4, "model_type": "olmoe"}'), ("tokenizer.json", '{"model": {"vocab": {"b": 0}}}')],
)
def test_what_either_file_says_does(folder: Path, name: str, content: str) -> None:
    before = text_digest(folder)
    (folder / name).write_text(content)
    assert text_digest(folder) not in ("", before)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_without_one_of_them_nothing_is_said(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert text_digest(folder) == ""
