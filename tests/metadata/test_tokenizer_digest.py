"""The tokenizer that a gateway and a router both have, told apart by what its file says."""

from pathlib import Path

import pytest

from services.metadata.tokenizer_digest import tokenizer_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    return tmp_path


def test_another_tokenizer_has_another_digest_and_other_files_do_not_matter(folder: Path) -> None:
    before = tokenizer_digest(folder)
    assert len(before) == 32
    (folder / "chat_template.jinja").write_text("another")
    assert tokenizer_digest(folder) == before
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"b": 0}}}')
    assert tokenizer_digest(folder) not in ("", before)


def test_without_a_tokenizer_nothing_is_said(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert tokenizer_digest(folder) == ""
