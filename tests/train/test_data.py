"""The training texts: the same seed gives the same documents, and the tokenizer keeps
its promises.
"""

import re
from pathlib import Path

from tokenizers import Tokenizer

from train.stories import StoryWriter
from train.tokenizer import END_ID, PAD_ID, SPECIALS, train_tokenizer, wrap_tokenizer

NUM_DOCUMENTS = 300


def written(seed: int) -> list[str]:
    writer = StoryWriter(seed)
    return [writer.document() for _ in range(NUM_DOCUMENTS)]


def test_the_same_seed_writes_the_same_stories() -> None:
    assert written(1) == written(1)
    assert written(1) != written(2)


def test_no_story_shows_the_grammar_it_came_from() -> None:
    for document in written(3):
        plain = re.sub(r"<\|(user|assistant)\|>", "", document)
        assert not re.search(r"[\[\]{}<>|]|a\(n\)|\ba [aeio]\w", plain), plain


def test_a_request_asks_before_the_story_answers() -> None:
    requests = [document for document in written(4) if "<|user|>" in document]
    assert requests
    assert all(re.fullmatch(r"<\|user\|>.+<\|assistant\|>(?s:.+)", request) for request in requests)


def test_the_special_tokens_have_the_first_four_numbers() -> None:
    tokenizer = train_tokenizer(written(5), vocabulary=400)
    assert [tokenizer.token_to_id(token) for token in SPECIALS] == [0, 1, 2, 3]
    assert (END_ID, PAD_ID) == (0, 3)


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = train_tokenizer(written(5), vocabulary=400)
    text = "Grüße, 2026! \t def f(x):\n    return x"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode("2026").ids) == 4


def test_the_chat_template_ends_with_the_assistants_turn(tmp_path: Path) -> None:
    tokenizer: Tokenizer = train_tokenizer(written(5), vocabulary=400)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    wrapped = wrap_tokenizer(tmp_path / "tokenizer.json")
    prompt = wrapped.apply_chat_template(
        [{"role": "user", "content": "Hello!"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == "<|user|>Hello!<|assistant|>"
