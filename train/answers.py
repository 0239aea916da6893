"""Measures what a model writes: names it keeps, exchanges it knows, and sample texts."""

import re
from dataclasses import dataclass
from random import Random
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from train.cast import all_names, words
from train.questions import definitions, exchanges
from train.stories import StoryWriter
from train.tokenizer import ASSISTANT, END_ID, PAD_ID, USER

NUM_REQUESTS = 32
NUM_DEFINITIONS = 60
REQUEST_SEED, REFERENCE_SEED, WORDING_SEED = 5, 99, 0
STORY_TOKENS, ANSWER_TOKENS = 150, 60


@dataclass(frozen=True)
class Names:
    """How well stories keep to their names."""

    distinct: float
    asked_first: float
    distinct_in_data: float


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    max_tokens: int,
    *,
    heat: float = 0.0,
) -> list[str]:
    """Continues every prompt; greedy unless `heat`, the temperature, is positive."""
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    torch.manual_seed(0)
    sampling = (
        {"do_sample": True, "temperature": heat, "top_p": 0.9, "top_k": 0}
        if heat
        else {"do_sample": False}
    )
    with torch.no_grad():
        output = cast(Any, model).generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_tokens,
            eos_token_id=END_ID,
            pad_token_id=PAD_ID,
            **sampling,
        )
    return [_until_end(row, tokenizer) for row in output[:, batch.input_ids.shape[1] :].tolist()]


def _until_end(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text with its end token, if any: whether it stopped by itself is part of the answer."""
    kept = tokens[: tokens.index(END_ID) + 1] if END_ID in tokens else tokens
    return str(tokenizer.decode(kept))


def ask(question: str) -> str:
    return f"{USER}{question}{ASSISTANT}"


def measure_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Names:
    """Asks for 32 stories about a named girl and a coloured toy, at temperature 0.6."""
    random = Random(REQUEST_SEED)
    asked = [random.choice(all_names("girls")) for _ in range(NUM_REQUESTS)]
    prompts = []
    for name in asked:
        color, toy = random.choice(words()["colors"]), random.choice(words()["toys"])
        prompts.append(ask(f"Tell me a story about a girl named {name} and a {color} {toy}."))
    told = [_names_in(text) for text in generate(model, tokenizer, prompts, STORY_TOKENS, heat=0.6)]
    writer = StoryWriter(REFERENCE_SEED)
    written = [_names_in(writer.document().split(ASSISTANT)[-1]) for _ in range(400)]
    return Names(
        distinct=_mean_distinct(told),
        asked_first=sum(names[:1] == [name] for names, name in zip(told, asked, strict=True))
        / NUM_REQUESTS,
        distinct_in_data=_mean_distinct(written),
    )


def _names_in(text: str) -> list[str]:
    known = frozenset(all_names())
    return [word for word in re.findall("[A-Z][a-z]+", text) if word in known]


def _mean_distinct(texts: list[list[str]]) -> float:
    return sum(len(set(names)) for names in texts) / len(texts)


def measure_recall(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """The share of known exchanges and of trained definitions that the greedy answer repeats
    exactly.
    """
    random = Random(WORDING_SEED)
    defined = random.sample(
        [text for word in definitions(random) for text in word], NUM_DEFINITIONS
    )
    known = sorted(set(exchanges()))
    chat = [text for text in known if not re.search(" is [0-9]+[.]$", text)]
    sums = random.sample([text for text in known if text not in chat], NUM_DEFINITIONS)
    return {
        "definitions": _recalled(model, tokenizer, defined),
        "exchanges": _recalled(model, tokenizer, chat),
        "sums": _recalled(model, tokenizer, sums),
    }


def _recalled(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: list[str]
) -> float:
    accepted: dict[str, set[str]] = {}
    for document in documents:
        question, answer = document.split(ASSISTANT)
        accepted.setdefault(question + ASSISTANT, set()).add(answer + "<|endoftext|>")
    given = generate(model, tokenizer, list(accepted), ANSWER_TOKENS)
    return sum(
        answer in wanted for answer, wanted in zip(given, accepted.values(), strict=True)
    ) / len(accepted)
