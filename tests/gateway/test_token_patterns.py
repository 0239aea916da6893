"""Any of many tokens is found in one pass, as looking for each of them would find it."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.token_patterns import any_token, token_beginnings

TOKENS = st.lists(st.text("ab.|", min_size=1, max_size=4), max_size=6)


@given(tokens=TOKENS, text=st.text("ab.|", max_size=12))
def test_tokens_are_found_in_order_the_longest_first(tokens: list[str], text: str) -> None:
    expected, place = [], 0
    while place < len(text):
        here = max((one for one in tokens if text.startswith(one, place)), key=len, default="")
        expected += [here] if here else []
        place += len(here) or 1
    assert any_token(tokens).findall(text) == expected


@given(tokens=TOKENS, text=st.text("ab.|", max_size=12))
def test_every_beginning_is_found(tokens: list[str], text: str) -> None:
    places = [
        place for place in range(len(text)) if any(text.startswith(one, place) for one in tokens)
    ]
    assert [found.start() for found in token_beginnings(tokens).finditer(text)] == places
    assert all(len(found[0]) == 1 for found in token_beginnings(tokens).finditer(text))
