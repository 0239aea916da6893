"""Prompts are encoded in a process that is ended where a tokenizer does not end."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from moesaic.v1 import generation_pb2 as pb
from services.gateway.chat import ChatTemplate
from services.gateway.checkpoint import read_checkpoint
from services.gateway.conversation import Conversation, Message
from services.gateway.prompt_tokens import PromptTokensHere
from services.gateway.prompts_apart import PromptTokensApart
from services.gateway.tokeniser import ChatPrompt, TextPrompt, Tokeniser
from services.gateway.tokenizer_files import TokenizerFile
from services.metadata.refusals import UnusableModel
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.wire.errors import BadState, InvalidRequest

TEMPLATE = "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}"
# Published ones cut the spaces off a text's end so: from each of many spaces in a row to the last.
SQUARE = r"\s+$"
ENDLESS = " " * 200_000 + "x"
# Gives up by raising what is no Exception.
DEEP, DEEP_TEXT = "(x+x+)+y", "x" * 60


def unusual(directory: Path) -> Path:
    """The embedded model's tokenizer, which looks for two more patterns first."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED_MODEL / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SQUARE), "isolated"),
            pre_tokenizers.Split(Regex(DEEP), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    path = directory / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[PromptTokensApart]:
    file, _ = TokenizerFile.found(unusual(tmp_path))
    prompts = PromptTokensApart(file, {}, {"default": TEMPLATE}, max_seconds=2.0)
    yield prompts
    prompts.close()


def test_a_text_that_is_never_done_is_refused_and_others_are_served(
    apart: PromptTokensApart, tmp_path: Path
) -> None:
    here = PromptTokensHere(
        Tokenizer.from_file(str(tmp_path / "tokenizer.json")),
        {"default": ChatTemplate(TEMPLATE, {})},
    )
    expected = here.of_text("Once upon ", add_special_tokens=True)
    assert apart.of_text("Once upon ", add_special_tokens=True) == expected
    with pytest.raises(InvalidRequest, match=r"text: the model's tokenizer was ended: .* than 2 s"):
        apart.of_text(ENDLESS, add_special_tokens=True)
    chat = Conversation([Message("user", "I say <|user|>")])
    for parse_control_tokens in (False, True):
        assert apart.of_chat(
            chat, "default", parse_control_tokens=parse_control_tokens
        ) == here.of_chat(chat, "default", parse_control_tokens=parse_control_tokens)
    with pytest.raises(InvalidRequest, match=r"gives up on the text: .*retry-limit"):
        apart.of_text(DEEP_TEXT, add_special_tokens=True)
    assert apart.of_text("Once upon ", add_special_tokens=True) == expected


def test_a_file_that_was_replaced_is_not_encoded_with(
    apart: PromptTokensApart, tmp_path: Path
) -> None:
    shutil.copy(EMBEDDED_MODEL / "tokenizer.json", tmp_path)
    with pytest.raises(BadState, match="cannot be read any more"):
        apart.of_text("Once", add_special_tokens=True)


async def test_a_checkpoint_with_an_unusual_pattern_is_served(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EMBEDDED_MODEL / name, tmp_path)
    unusual(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.encoded_apart is not None
    tokeniser = Tokeniser(checkpoint, threads=1)
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="Once")])
    for prompt in (TextPrompt("Once"), ChatPrompt(chat, "default")):
        assert await tokeniser.encode(prompt, "client")
    tokeniser.close()


def takes_for_ever(path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    tokenizer.add_tokens([AddedToken(f"<{ENDLESS * 5}>", normalized=True)])
    written = json.loads(tokenizer.to_str())  # here it would be normalised as well
    written["normalizer"] = {"type": "Replace", "pattern": {"Regex": SQUARE}, "content": ""}
    path.write_text(json.dumps(written))


def takes_gigabytes(path: Path) -> None:
    pieces = [(f"{number}{'ab' * 30_000}", -1.0) for number in range(70)]
    written = json.loads(Tokenizer(models.Unigram([("u", 0.0)], unk_id=0)).to_str())
    written["model"]["vocab"] += pieces
    path.write_text(json.dumps(written))


@pytest.mark.parametrize("write", [takes_for_ever, takes_gigabytes])
def test_a_tokenizer_that_takes_too_much_to_read_is_refused(tmp_path: Path, write: object) -> None:
    path = tmp_path / "tokenizer.json"
    assert callable(write)
    write(path)
    file, _ = TokenizerFile.found(path)
    prompts = PromptTokensApart(file, {}, {}, max_seconds=0.5)
    with pytest.raises(UnusableModel, match=r"tokenizer.json cannot be read: .* MiB of memory"):
        prompts.check()
    prompts.close()
