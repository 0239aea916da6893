"""What the gateway reads of a checkpoint, and how it says that one cannot be used."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from moesaic.v1 import generation_pb2 as pb
from services.gateway.checkpoint import read_checkpoint
from services.gateway.tokeniser import ChatPrompt, TextPrompt, Tokeniser
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.wire.errors import BadState
from services.wire.sampling import Sampling

TEXT_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the embedded model's text side without its chat template."""
    for name in TEXT_FILES:
        shutil.copy(EMBEDDED_MODEL / name, tmp_path)
    return tmp_path


def change(directory: Path, name: str, **values: Any) -> None:
    """Set values of a JSON file, or remove those that are None."""
    path = directory / name
    content = (json.loads(path.read_text()) if path.exists() else {}) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_the_embedded_model_is_found_without_its_package() -> None:
    checkpoint = read_checkpoint(EMBEDDED_MODEL)
    assert (checkpoint.name, checkpoint.model_type, checkpoint.vocab_size) == (
        "tessera",
        "qwen3_moe",
        4096,
    )
    assert checkpoint.eos_token_ids == (0,)
    assert checkpoint.has_chat_template


def test_recommended_sampling_comes_from_the_generation_config(directory: Path) -> None:
    change(
        directory,
        "generation_config.json",
        temperature=0.6,
        top_k=20,
        top_p=0.9,
        eos_token_id=[0, 2],
    )
    checkpoint = read_checkpoint(directory, name="mine")
    assert checkpoint.name == "mine"
    assert checkpoint.eos_token_ids == (0, 2)
    sampling = checkpoint.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.6, 20, 0.9)


def test_without_any_eos_id_the_eos_token_is_looked_up(directory: Path) -> None:
    (directory / "generation_config.json").unlink()
    change(directory, "config.json", eos_token_id=None)
    change(directory, "tokenizer_config.json", eos_token={"content": "<|assistant|>"})
    assert read_checkpoint(directory).eos_token_ids == (2,)


def test_the_tokenizers_eos_token_ends_a_turn_besides_those_of_the_generation_config(
    directory: Path,
) -> None:
    change(directory, "generation_config.json", eos_token_id=[0, 3])
    change(directory, "tokenizer_config.json", eos_token="<|assistant|>")
    assert read_checkpoint(directory).eos_token_ids == (0, 3, 2)


@pytest.mark.parametrize(
    ("stated", "token_ids"), [([], (0,)), (2.0, (2, 0)), ([2, -1], (2, 0)), (5_000_000_000, (0,))]
)
def test_eos_ids_outside_of_the_vocabulary_are_never_drawn_and_warned_of(
    directory: Path, stated: Any, token_ids: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    change(directory, "generation_config.json", eos_token_id=stated)
    assert read_checkpoint(directory).eos_token_ids == token_ids
    assert ("outside of the vocabulary of 4096" in caplog.text) == (stated not in ([], 2.0))


def test_null_is_as_if_it_were_not_there(directory: Path) -> None:
    for name in TEXT_FILES:
        if name != "tokenizer.json":
            path = directory / name
            nothing = dict.fromkeys(
                ("text_config", "temperature", "add_bos_token", "pad_token", "unk_token")
            )
            path.write_text(json.dumps(json.loads(path.read_text()) | nothing))
    checkpoint = read_checkpoint(directory)
    assert checkpoint.eos_token_ids == (0,)
    assert checkpoint.special_tokens.keys() == {"bos_token", "eos_token"}


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("config.json", "vocab_size", "many"),
        ("config.json", "vocab_size", True),
        ("config.json", "vocab_size", 2**40),
        ("config.json", "text_config", []),
        ("config.json", "model_type", 5),
        ("generation_config.json", "temperature", "warm"),
        ("generation_config.json", "eos_token_id", "<|endoftext|>"),
        ("generation_config.json", "eos_token_id", [[0]]),
        ("generation_config.json", "num_beams", 4),
        ("tokenizer_config.json", "add_bos_token", "yes"),
        ("tokenizer_config.json", "bos_token", 5),
        ("tokenizer_config.json", "eos_token", "\ud800"),
        ("special_tokens_map.json", "unk_token", ["<unk>"]),
    ],
)
def test_a_value_of_another_kind_is_refused_by_file_and_field(
    directory: Path, file: str, field: str, value: Any
) -> None:
    change(directory, file, **{field: value})
    with pytest.raises(BadState, match=rf"{file}: {field} is .*; it must be "):
        read_checkpoint(directory)


def test_a_special_token_may_be_described_by_an_object(directory: Path) -> None:
    change(directory, "tokenizer_config.json", eos_token={"content": "<|assistant|>"})
    assert read_checkpoint(directory).special_tokens["eos_token"] == "<|assistant|>"
    change(directory, "tokenizer_config.json", eos_token={"content": 5})
    with pytest.raises(
        BadState, match=r"tokenizer_config\.json: eos_token: content is 5; it must be a text"
    ):
        read_checkpoint(directory)


def test_a_bos_token_that_the_model_does_not_have_is_not_added_to_every_prompt(
    directory: Path,
) -> None:
    change(directory, "config.json", vocab_size=1)
    change(directory, "tokenizer_config.json", add_bos_token=True, bos_token="<|assistant|>")
    with pytest.raises(BadState, match=r"tokenizer_config\.json: bos_token .* its id is 2"):
        read_checkpoint(directory)


def test_without_recommendations_nothing_but_stop_tokens_is_taken(directory: Path) -> None:
    change(directory, "generation_config.json", eos_token_id=3, num_beams=4, stop_strings=["x"])
    checkpoint = read_checkpoint(directory, takes_recommendations=False)
    assert (checkpoint.sampling, checkpoint.stop_strings) == (Sampling(), ())
    assert checkpoint.eos_token_ids == (3, 0)


def test_in_the_cache_a_model_has_its_repositorys_name(directory: Path) -> None:
    snapshot = directory / "models--org--Tiny" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for name in TEXT_FILES:
        (snapshot / name).symlink_to(directory / name)
    assert read_checkpoint(snapshot).name == "Tiny"
    assert read_checkpoint(snapshot, name="mine").name == "mine"


def test_a_composite_models_vocabulary_is_its_texts(directory: Path) -> None:
    change(directory, "config.json", vocab_size=None, text_config={"vocab_size": 4096})
    assert read_checkpoint(directory).vocab_size == 4096


async def test_a_bos_token_that_only_the_config_asks_for_is_added_to_text_alone(
    directory: Path,
) -> None:
    change(directory, "tokenizer_config.json", add_bos_token=True, chat_template="hello")
    tokeniser = Tokeniser(read_checkpoint(directory), threads=1)
    assert (await tokeniser.encode(TextPrompt("hello"), "client"))[0] == 0
    chat = ChatPrompt(pb.Chat(messages=[pb.ChatMessage(role="user")]), "default")
    assert (await tokeniser.encode(chat, "client"))[0] != 0
    tokeniser.close()


async def test_a_bos_token_that_the_tokenizer_adds_is_not_added_twice(directory: Path) -> None:
    change(directory, "tokenizer_config.json", add_bos_token=True)
    tokenizer = read_checkpoint(directory).tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    tokeniser = Tokeniser(read_checkpoint(directory), threads=1)
    assert list(await tokeniser.encode(TextPrompt("hello"), "client")).count(0) == 1
    tokeniser.close()


def test_truncation_left_on_by_a_training_run_is_switched_off(directory: Path) -> None:
    tokenizer = read_checkpoint(directory).tokenizer
    tokenizer.enable_truncation(2)
    tokenizer.save(str(directory / "tokenizer.json"))
    assert len(read_checkpoint(directory).tokenizer.encode("one two three four").ids) > 2


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(BadState, match=rf"{name} is missing"):
        read_checkpoint(directory)


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_truncated_file_is_named(directory: Path, name: str) -> None:
    path = directory / name
    path.write_text(path.read_text()[:20])
    with pytest.raises(BadState, match=name):
        read_checkpoint(directory)


READ_FILES = (*TEXT_FILES, "chat_template.jinja", "additional_chat_templates/a.jinja")


@pytest.mark.parametrize("name", READ_FILES)
def test_a_file_without_an_end_is_named(directory: Path, name: str) -> None:
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, 65 << 20)
    with pytest.raises(BadState, match=rf"{name} has more than"):
        read_checkpoint(directory)
    for put in (os.mkfifo, lambda place: place.symlink_to("/dev/zero")):
        path.unlink()
        put(path)
        with pytest.raises(BadState, match=rf"{name} is (no file|missing)"):
            read_checkpoint(directory)


@pytest.mark.parametrize("sources", [["a" * (1 << 17), "b"], ["a"] * 65])
def test_more_or_longer_templates_than_can_be_read_in_time_are_refused(
    directory: Path, sources: list[str]
) -> None:
    further = directory / "additional_chat_templates"
    further.mkdir()
    for number, source in enumerate(sources):
        (further / f"{number}.jinja").write_text(source)
    with pytest.raises(BadState, match=r"has \d+ chat templates of \d+ characters; it may have 64"):
        read_checkpoint(directory)


def test_a_config_that_is_no_object_or_lacks_the_vocabulary_is_refused(directory: Path) -> None:
    change(directory, "config.json", vocab_size=None)
    with pytest.raises(BadState, match="has no vocab_size"):
        read_checkpoint(directory)
    (directory / "config.json").write_text("[]")
    with pytest.raises(BadState, match="holds no JSON object"):
        read_checkpoint(directory)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadState, match=r"there is no directory .*nowhere"):
        read_checkpoint(tmp_path / "nowhere")
