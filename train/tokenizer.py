"""Trains the byte-level BPE tokenizer and wraps it with the special tokens and the
chat template.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END, USER, ASSISTANT, PAD = SPECIALS = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|pad|>")
END_ID, PAD_ID = 0, 3
VOCABULARY = 4096
SPECIAL = re.compile(r"<\|\w+\|>")

CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|user|>' if m['role']=='user' else ('<|assistant|>' if m['role']=='assistant' else '') }}"
    "{{ m['content'] }}"
    "{% if m['role']=='assistant' %}<|endoftext|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(documents: Iterable[str], *, vocabulary: int = VOCABULARY) -> Tokenizer:
    """Byte-level BPE with single digits; the special tokens get the first four numbers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_between_specials(documents), trainer)
    return tokenizer


def _between_specials(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        yield from filter(None, SPECIAL.split(document))


def wrap_tokenizer(tokenizer_file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers saves and loads it."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
