"""Text is encoded, and decoded, as the tokenizer's own calls do, and the interpreter goes on
meanwhile.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer

from moesaic.v1 import generation_pb2 as pb
from services.gateway.encoding import decode, encode
from services.runtime.embedded_model import EMBEDDED_MODEL

LONG = "It is a truth universally acknowledged " * 2_000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED_MODEL / "tokenizer.json"))


@pytest.mark.parametrize("text", ["", "Once", "\u00fc\u0301 <|user|> \U0001f600", LONG])
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_ids_and_places_are_those_of_the_tokenizers_own_call(
    tokenizer: Tokenizer, text: str, add_special_tokens: bool
) -> None:
    encoding = encode(tokenizer, text, add_special_tokens=add_special_tokens)
    expected = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    assert encoding.ids == expected.ids
    assert encoding.offsets == expected.offsets


@pytest.mark.parametrize("token_ids", [[], [0, 5, 1], list(range(4096))])
def test_the_text_of_token_ids_is_that_of_the_tokenizers_own_call(
    tokenizer: Tokenizer, token_ids: list[int]
) -> None:
    asked = pb.DetokenizeRequest(token_ids=token_ids).token_ids
    expected = tokenizer.decode(token_ids, skip_special_tokens=False)
    assert decode(tokenizer, asked) == decode(tokenizer, token_ids) == expected


@pytest.mark.parametrize("work", [encode, decode])
def test_other_threads_run_while_something_long_is_read(
    tokenizer: Tokenizer, work: Callable[[Tokenizer, Any], object]
) -> None:
    long: Any = LONG * 5 if work is encode else tokenizer.encode(LONG).ids * 25
    begins = threading.Event()

    def run_long() -> None:
        begins.set()
        work(tokenizer, long)

    other = threading.Thread(target=run_long)
    other.start()
    begins.wait()
    num_turns = 0
    while other.is_alive():
        time.sleep(0.0005)
        num_turns += 1
    assert num_turns > 20  # one or two, where the lock is kept
