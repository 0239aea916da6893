"""What a model is called after its folder."""

from pathlib import Path

import pytest

from services.metadata.names import model_name

COMMIT = "0123abcd" * 5


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Tiny-MoE", "Tiny-MoE"),
        (f"hub/models--org--Tiny-MoE/snapshots/{COMMIT}", "Tiny-MoE"),
        (f"hub/models--gpt2/snapshots/{COMMIT}", "gpt2"),
        ("snapshots/mine", "mine"),
        (f"datasets--org--texts/snapshots/{COMMIT}", COMMIT),
    ],
)
def test_a_name_is_the_repositorys_in_the_cache_and_the_folders_elsewhere(
    folder: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / folder
    path.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert {model_name(path), model_name(Path(f"{path}/")), model_name(link)} == {name}
    monkeypatch.chdir(path)
    assert model_name(Path(".")) == model_name(Path("../") / path.name) == name


def test_a_repository_that_was_moved_and_linked_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "disk" / "snapshots" / COMMIT).mkdir(parents=True)
    repository = tmp_path / "models--org--Tiny-MoE"
    repository.symlink_to(tmp_path / "disk")
    assert model_name(repository / "snapshots" / COMMIT) == "Tiny-MoE"


def test_a_name_can_always_be_sent(tmp_path: Path) -> None:
    assert model_name(tmp_path / "tiny\udcff").encode() == b"tiny?"
    assert model_name(Path("/")) == "/"
