"""Of the files in a folder those are the model that transformers would load; what is left aside is
said.
"""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from services.model.checkpoint import Checkpoint
from tests.checkpoints import save_tiny
from tests.damage import refused, settings

INDEX = "model.safetensors.index.json"
EMBEDDING = "model.embed_tokens.weight"


def assert_is_transformers(directory: Path) -> None:
    """Every weight of the trunk is what from_pretrained has."""
    whole = AutoModelForCausalLM.from_pretrained(directory).state_dict()
    checkpoint = Checkpoint.open(directory)
    for name, weight in checkpoint.layout.trunk.items():
        assert torch.equal(checkpoint.files.read(weight.tensors[0]), whole[name]), name


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """A folder into which one model was saved in shards, and another one in a single file."""
    save_tiny("olmoe", tmp_path / "twice", seed=1, max_shard_size="60KB")
    save_tiny("olmoe", tmp_path / "other", seed=2)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "twice")
    return tmp_path / "twice"


def test_a_single_file_goes_before_an_index_with_a_warning(
    twice: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert_is_transformers(twice)
    assert "model.safetensors read, left aside: model-00001-of-" in caplog.text
    assert "more" in caplog.text


def test_a_stale_index_hinders_nothing(twice: Path, caplog: pytest.LogCaptureFixture) -> None:
    for shard in twice.glob("model-*-of-*"):
        shard.unlink()
    assert_is_transformers(twice)
    assert INDEX in caplog.text


def test_shards_are_read_whole_and_the_last_one_of_a_tensor_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_tiny("olmoe", tmp_path, max_shard_size="60KB")
    index = json.loads((tmp_path / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    # A tensor that the index does not name, and another in a second shard, where it has other
    # values.
    del index["weight_map"]["model.norm.weight"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    file = tmp_path / shards[-1]
    assert EMBEDDING not in load_file(file)
    save_file({**load_file(file), EMBEDDING: torch.ones(320, 32)}, file, {"format": "pt"})

    assert_is_transformers(tmp_path)
    assert f"{shards[-1]} has 1 tensors of files before it, and counts: {EMBEDDING}" in caplog.text


def test_an_index_may_name_tensors_that_are_nowhere_if_the_model_does_not_need_them(
    tmp_path: Path,
) -> None:
    save_tiny("olmoe", tmp_path, max_shard_size="60KB")
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["old.buffer"] = next(iter(index["weight_map"].values()))
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert_is_transformers(tmp_path)


def test_the_file_that_the_configuration_names_is_read(tmp_path: Path) -> None:
    save_tiny("olmoe", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    settings(transformers_weights="weights.safetensors")(tmp_path)
    assert_is_transformers(tmp_path)
    settings(transformers_weights="../weights.safetensors")(tmp_path)
    refused(tmp_path, r"transformers_weights names a file outside its directory")


def test_shards_may_lie_in_a_folder_within(tmp_path: Path) -> None:
    save_tiny("olmoe", tmp_path)
    (tmp_path / "weights").mkdir()
    names = list(load_file(tmp_path / "model.safetensors"))
    (tmp_path / "model.safetensors").rename(tmp_path / "weights" / "a.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "weights/a.safetensors")}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert_is_transformers(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-00001.safetensors",
        "model.fp16.safetensors",
        "consolidated.safetensors",
        "pytorch_model.bin",
        "tiny-q4.gguf",
    ],
)
def test_weights_under_another_name_are_refused_by_that_name(name: str, tmp_path: Path) -> None:
    (save_tiny("olmoe", tmp_path) / "model.safetensors").rename(tmp_path / name)
    refused(tmp_path, rf"neither model\.safetensors nor .*What is there: {name}")


def test_a_link_to_nothing_and_a_folder_are_named_as_what_they_are(tmp_path: Path) -> None:
    weights = save_tiny("olmoe", tmp_path) / "model.safetensors"
    weights.unlink()
    weights.symlink_to("nowhere")
    refused(tmp_path, r"model\.safetensors \(a link to a file that is not there\)")
    weights.unlink()
    weights.mkdir()
    refused(tmp_path, r"model\.safetensors \(a folder\)")


def test_copies_for_other_engines_are_no_matter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(
        save_tiny("olmoe", tmp_path) / "model.safetensors", tmp_path / "consolidated.safetensors"
    )
    assert_is_transformers(tmp_path)
    assert "left aside" not in caplog.text


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{}", r"safetensors\.index\.json is not an index of weights"),
        (b'{"weight_map": {}}', r"is not an index of weights"),
        (b'{"weight_map": {"a": 5}}', r"is not an index of weights"),
        (b'{"weight_map": ["a"]}', r"index\.json: weight_map is \['a'\]; it must be an object"),
        (b'{"weight_map"', r"index\.json is not readable JSON"),
        (b'{"weight_map": {"a": "../model.safetensors"}}', r"names a file outside its directory"),
        (b'{"weight_map": {"a": "/model.safetensors"}}', r"names a file outside its directory"),
        (b'{"weight_map": {"a": "b.safetensors"}}', r"b\.safetensors is missing"),
    ],
)
def test_an_index_that_is_none_is_refused(index: bytes, message: str, tmp_path: Path) -> None:
    (save_tiny("olmoe", tmp_path) / "model.safetensors").rename(tmp_path / "a.safetensors")
    (tmp_path / INDEX).write_bytes(index)
    refused(tmp_path, message)
