"""The prompts of a load, and the requests made of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from moesaic.v1 import common_pb2, generation_pb2
from services.cli.bench.client import build_request
from services.cli.bench.prompts import BenchPrompt, built_in_prompts, cut_to, read_prompts
from services.cli.bench.settings import BenchSettings
from services.runtime.settings import load
from services.wire.errors import InvalidRequest


def test_the_built_in_prompts_are_different_texts() -> None:
    texts = [prompt.text for prompt in built_in_prompts()]
    assert len(set(texts)) == len(texts) >= 32
    assert all(100 < len(text) < 500 for text in texts)


def test_a_file_has_a_prompt_a_line_in_either_form(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text(
        'The fox\n\n{"prompt": "The {sea}", "max_new_tokens": 7}\n  { "prompt": "ä" }\n',
        encoding="utf-8",
    )
    assert read_prompts(file) == [
        BenchPrompt("The fox"),
        BenchPrompt("The {sea}", 7),
        BenchPrompt("ä"),
    ]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0c", "\x1c", "\r"])
def test_lines_end_at_line_feeds_alone(tmp_path: Path, character: str) -> None:
    text = f"one{character}two"
    file = tmp_path / "prompts"
    written = json.dumps({"prompt": text}, ensure_ascii=character < " ")
    file.write_bytes(f"{written}\r\n{text}\r\n".encode())
    assert read_prompts(file) == [BenchPrompt(text), BenchPrompt(text)]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_bytes('\ufeff{"prompt": "one"}\n'.encode())
    assert read_prompts(file) == [BenchPrompt("one")]


@pytest.mark.parametrize(
    "text", ["{name} went home", "{ int x; }", "{", '"quoted"', "[1, 2]", "7", "null"]
)
def test_what_is_no_object_is_a_text(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prompts"
    file.write_text(text, encoding="utf-8")
    assert read_prompts(file) == [BenchPrompt(text)]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{}", "1: prompt must be a text that is not empty"),
        ('{"prompt": "\\ud800"}', "1: prompt must be a text; it has half of a pair"),
        ('{"prompt": ' + "[" * 50_000, "1: maximum recursion depth"),
        ("", "has no prompts"),
        ("\n \n", "has no prompts"),
        ('one\n{"prompt": "two"', "2: Expecting"),
        ('{"text": "two"}', "1: 'text' is neither prompt nor max_new_tokens"),
        ('{"prompt": ""}', "1: prompt must be a text that is not empty"),
        ('{"prompt": 3}', "1: prompt must be a text"),
        (
            '{"prompt": "one", "max_new_tokens": 0}',
            "1: max_new_tokens must be a whole number above 0",
        ),
        (
            '{"prompt": "one", "max_new_tokens": true}',
            "1: max_new_tokens must be a whole number above 0",
        ),
    ],
)
def test_a_line_that_is_no_prompt_is_refused_by_its_number(
    tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "prompts"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRequest) as refused:
        read_prompts(file)
    assert complaint in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_prompts(tmp_path / "nothing")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_prompts(tmp_path / "bytes")


async def by_character(text: str) -> Sequence[int]:
    """A tokenizer that gives a beginning, each character's code, and an end."""
    return [1, *map(ord, text), 2]


async def test_a_prompt_is_cut_to_its_tokens_or_goes_on_with_the_next_ones() -> None:
    prompts = [BenchPrompt("abcdef", 9), BenchPrompt("xy")]
    long, short = await cut_to(by_character, prompts, 4)
    assert long == BenchPrompt("abcdef", 9, (1, *map(ord, "abc")))
    assert short == BenchPrompt("xy", None, (1, *map(ord, "xy\n")))
    token_ids = (await cut_to(by_character, prompts, 1000))[1].token_ids
    assert token_ids is not None and len(token_ids) == 1000


async def by_word(text: str) -> Sequence[int]:
    """A tokenizer of few tokens: a first guess at the text is too short for it."""
    return [len(word) for word in text.split()]


async def test_more_text_is_taken_where_tokens_are_long() -> None:
    (prompt,) = await cut_to(by_word, [BenchPrompt("incomprehensibilities")], 5)
    assert prompt.token_ids == (21,) * 5


def settings(*arguments: str) -> BenchSettings:
    return load(BenchSettings, arguments, "moesaic bench")


def test_every_flag_is_in_the_request() -> None:
    flags = (
        "--max-new-tokens 5 --temperature 0 --top-p 0.9 --top-k 40 --min-p 0.1 --seed 100 "
        "--ignore-eos"
    )
    assert build_request(
        settings(*flags.split()), BenchPrompt("Once"), 7
    ) == generation_pb2.GenerateRequest(
        text="Once",
        sampling=common_pb2.SamplingParameters(
            temperature=0, top_p=0.9, top_k=40, min_p=0.1, seed=107
        ),
        stop=common_pb2.StopConditions(max_new_tokens=5, ignore_eos=True),
    )


def test_what_is_not_said_is_left_to_the_gateway() -> None:
    sampling = build_request(settings(), BenchPrompt("Once"), 0).sampling
    said = {field.name for field, _ in sampling.ListFields()}
    assert not said & {"temperature", "top_p", "top_k", "min_p"}


def test_a_line_of_the_file_knows_its_length_better_than_the_flag() -> None:
    request = build_request(settings("--max-new-tokens", "5"), BenchPrompt("Once", 9, (3, 4)), 0)
    assert request.stop.max_new_tokens == 9
    assert request.token_ids.ids == [3, 4]
    assert not request.text


def test_seeds_stay_within_their_field() -> None:
    assert (
        build_request(settings("--seed", str(2**64 - 1)), BenchPrompt("Once"), 2).sampling.seed == 1
    )
