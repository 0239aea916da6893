"""What generation_config.json recommends is what transformers would do with it, or is refused."""

from typing import Any

import pytest

from services.metadata.fields import Fields
from services.metadata.generation import Recommendation, read_recommendation
from services.metadata.refusals import UnusableModel
from services.wire.sampling import Sampling


def recommended(**fields: Any) -> Recommendation:
    return read_recommendation(Fields("generation_config.json", fields))


def test_what_is_recommended_is_taken() -> None:
    values: dict[str, Any] = {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
    }
    assert recommended(do_sample=True, **values).sampling == Sampling(**values)
    assert recommended(do_sample=True, stop_strings="END").stop_strings == ("END",)
    assert recommended(do_sample=True, stop_strings=["a", "b"]).stop_strings == ("a", "b")


@pytest.mark.parametrize("top_k", [None, 0, -1])
def test_top_k_has_several_ways_to_say_none(top_k: int | None) -> None:
    assert recommended(do_sample=True, top_k=top_k).sampling.top_k == 0


def test_numbers_are_understood_however_they_are_written() -> None:
    sampling = recommended(
        do_sample=True, temperature=1, top_k=20.0, top_p=1, min_p=0, repetition_penalty=1
    ).sampling
    assert sampling == Sampling(top_k=20)
    assert (
        recommended(do_sample=True, top_k=10**12).sampling.top_k == 2**32 - 1
    )  # keeps all, and can be sent
    assert 0 < recommended(do_sample=True, top_p=0).sampling.top_p < 1e-300  # the most likely token


@pytest.mark.parametrize("do_sample", [{}, {"do_sample": None}, {"do_sample": False}])
def test_a_model_that_does_not_say_that_it_samples_is_greedy(
    do_sample: dict[str, bool | None],
) -> None:
    sampling = recommended(**do_sample, temperature=0.9, top_k=20, repetition_penalty=1.05).sampling
    # The rest is for a request that asks for a temperature; the penalty counts for greedy ones,
    # too.
    assert sampling == Sampling(temperature=0, top_k=20, repetition_penalty=1.05)


def test_a_file_that_says_nothing_recommends_nothing() -> None:
    assert recommended() == Recommendation(Sampling())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "warm"),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", -2),
        ("top_k", 0.5),
        ("top_k", True),
        ("top_p", 1.5),
        ("min_p", [0.1]),
        ("repetition_penalty", 0),
        ("repetition_penalty", "1.1"),
        ("do_sample", "yes"),
        ("stop_strings", [""]),
        ("max_length", "long"),
        ("max_new_tokens", -5),
    ],
)
def test_what_cannot_be_a_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(
        UnusableModel, match=rf"^generation_config\.json: {field} is .*; it must be "
    ):
        recommended(**{"do_sample": True, field: value})


# Each with a value at which transformers draws other tokens, and those at which it does not.
NOT_DONE: dict[str, tuple[Any, list[Any]]] = {
    "num_beams": (4, [1]),
    "penalty_alpha": (0.6, [0.0]),
    "dola_layers": ("high", []),
    "guidance_scale": (1.5, [1, 1.0]),
    "typical_p": (0.9, [1.0]),
    "top_h": (0.4, []),
    "epsilon_cutoff": (3e-4, [0.0, 1.0]),
    "eta_cutoff": (1e-3, [0.0]),
    "encoder_repetition_penalty": (1.2, [1.0]),
    "no_repeat_ngram_size": (3, [0]),
    "encoder_no_repeat_ngram_size": (3, [0]),
    "min_length": (10, [0, 1]),
    "min_new_tokens": (10, [0]),
    "bad_words_ids": ([[1, 2]], [[]]),
    "suppress_tokens": ([1], [[]]),
    "begin_suppress_tokens": ([1], [[]]),
    "sequence_bias": ([[[1], 2.0]], [[], {}]),
    "force_words_ids": ([[1]], [[]]),
    "forced_bos_token_id": (1, []),
    "forced_eos_token_id": (1, []),
    "exponential_decay_length_penalty": ([5, 1.1], []),
    "watermarking_config": ({"bias": 2.0}, []),
    "token_healing": (True, [False]),
}


@pytest.mark.parametrize("field", NOT_DONE)
def test_what_would_draw_other_tokens_is_refused_with_a_way_out(field: str) -> None:
    wrong, neutral = NOT_DONE[field]
    for value in (wrong, "odd"):
        with pytest.raises(UnusableModel, match=rf"{field} is .*--generation-config=ignore"):
            recommended(do_sample=True, **{field: value})
    for value in (None, *neutral):
        assert recommended(do_sample=True, **{field: value}).sampling == Sampling()
