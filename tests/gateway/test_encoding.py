"""Text is encoded as the tokenizer's own call does, and the interpreter goes on meanwhile."""

import threading

import pytest
from tokenizers import Tokenizer

from services.gateway.encoding import encode
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


def test_other_threads_run_while_a_long_text_is_encoded(tokenizer: Tokenizer) -> None:
    order: list[str] = []
    begins = threading.Event()

    def run_long() -> None:
        begins.set()
        encode(tokenizer, LONG * 5)
        order.append("long")

    other = threading.Thread(target=run_long)
    other.start()
    begins.wait()
    encode(tokenizer, "Once")
    order.append("short")
    other.join()
    assert order == ["short", "long"]
