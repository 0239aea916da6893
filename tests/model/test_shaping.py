"""Biases, penalties and tokens that are withheld depend on a request and on its tokens alone."""

import math
from typing import Any

import pytest
import torch

from services.model.shaping import Shaping
from services.wire.sampling import Sampling

VOCAB = 12
ROW = torch.linspace(-3.0, 4.0, VOCAB)
EVERYTHING = Sampling(
    repetition_penalty=1.5,
    presence_penalty=0.5,
    frequency_penalty=0.25,
    logit_bias=((3, 7.0), (5, -2.0)),
    allowed_token_ids=(0, 3, 5, 7, 9),
)


def shaped(
    sampling: Sampling, prompt: tuple[int, ...] = (), generated: tuple[int, ...] = (), **more: Any
) -> list[float]:
    shaping = Shaping.wanted(sampling, prompt, generated, **more)
    assert shaping is not None
    numbers: list[float] = shaping.shaped(ROW).tolist()
    return numbers


def test_a_request_that_asks_for_none_of_it_has_no_shaping() -> None:
    assert Shaping.wanted(Sampling(temperature=0.3, top_k=5), (1, 2), (3,)) is None
    assert Shaping.wanted(Sampling(), (1,), (2,), stop_token_ids={4}, min_new_tokens=1) is None
    assert Shaping.wanted(Sampling(), (1,), min_new_tokens=5) is None


def test_presence_and_frequency_count_the_continuation_and_not_the_prompt() -> None:
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    expected = ROW.clone()
    expected[2] -= 0.5 + 3 * 0.25
    expected[4] -= 0.5 + 0.25
    assert shaped(sampling, (1, 1, 4), (2, 4, 2, 2)) == expected.tolist()


def test_biases_come_before_the_repetition_penalty_and_the_counts_after_it() -> None:
    sampling = Sampling(
        repetition_penalty=2.0, presence_penalty=1.0, logit_bias=((1, 50.0), (2, -50.0))
    )
    expected = ROW.clone()
    expected[1] = (ROW[1] + 50) / 2
    expected[2] = (ROW[2] - 50) * 2 - 1
    assert shaped(sampling, (1,), (2,)) == expected.tolist()


def test_only_allowed_tokens_are_left() -> None:
    numbers = shaped(Sampling(allowed_token_ids=(2, 9)))
    assert [place for place, number in enumerate(numbers) if number > -math.inf] == [2, 9]
    assert (numbers[2], numbers[9]) == (float(ROW[2]), float(ROW[9]))


def test_stop_tokens_are_withheld_until_there_are_enough() -> None:
    shaping = Shaping.wanted(Sampling(), (1,), (2,), stop_token_ids={11, 4}, min_new_tokens=3)
    assert shaping is not None
    for withheld in (True, True, False):
        is_out = (shaping.shaped(ROW) == -math.inf).nonzero().flatten().tolist()
        assert is_out == ([4, 11] if withheld else [])
        shaping.note(3)


@pytest.mark.parametrize("num_before", range(6))
def test_who_goes_on_with_a_sequence_does_what_who_began_would_have_done(num_before: int) -> None:
    generated = (3, 5, 3, 7, 9)
    stops: dict[str, Any] = {"stop_token_ids": {3}, "min_new_tokens": 4}
    going_on = Shaping.wanted(EVERYTHING, (1, 3), generated[:num_before], **stops)
    assert going_on is not None
    for token in generated[num_before:]:
        going_on.note(token)
    assert going_on.shaped(ROW).tolist() == shaped(EVERYTHING, (1, 3), generated, **stops)


def test_the_row_itself_stays_as_it_was() -> None:
    before = ROW.clone()
    shaped(EVERYTHING, (1, 3), (3,), stop_token_ids={0}, min_new_tokens=9)
    assert torch.equal(before, ROW)


def test_a_penalty_next_to_zero_leaves_numbers() -> None:
    numbers = shaped(Sampling(repetition_penalty=5e-324), tuple(range(VOCAB)))
    assert all(map(math.isfinite, numbers))
