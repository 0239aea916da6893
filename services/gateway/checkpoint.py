"""What the gateway reads of a checkpoint directory: everything about text, nothing
about weights.
"""

import logging
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from services.gateway.chat_templates import ChatTemplates, read_chat_templates
from services.gateway.ordinary_tokenizers import is_ordinary, is_ordinary_file
from services.gateway.prompts_apart import PromptTokensApart
from services.gateway.tokenizer_files import TokenizerFile
from services.metadata.fields import Fields
from services.metadata.generation import Recommendation, read_recommendation
from services.metadata.names import model_name
from services.metadata.refusals import UnusableModel
from services.wire.ranges import Range
from services.wire.sampling import Sampling

logger = logging.getLogger(__name__)

IDS = Range(1, 2**31)
SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class TextCheckpoint:
    """A checkpoint's tokenizer, chat template and defaults."""

    name: str
    model_type: str
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    sampling: Sampling
    # Only where the checkpoint asks for it and its tokenizer does not do so by itself.
    adds_bos_token_id: int | None
    # By name (`bos_token`, …), as chat templates know them.
    special_tokens: Mapping[str, str]
    chat_templates: ChatTemplates
    tokenizer: Tokenizer
    # Where prompts have to be encoded by other processes.
    encoded_apart: TokenizerFile | None = None
    # That end a continuation besides those of its request.
    stop_strings: tuple[str, ...] = ()

    @property
    def has_chat_template(self) -> bool:
        """Whether a chat can be rendered that does not say by which template."""
        return self.chat_templates.default in self.chat_templates.sources


def read_checkpoint(
    directory: Path, *, name: str | None = None, takes_recommendations: bool = True
) -> TextCheckpoint:
    """Read the checkpoint in `directory`; its name is the directory's unless `name` says another.

    Without `takes_recommendations` nothing but end-of-sequence tokens is taken from
    generation_config.json. Raises UnusableModel, naming the file, where one is missing, and the
    field, where a value is not what it has to be.
    """
    if not directory.is_dir():
        raise UnusableModel(f"model: there is no directory {directory}")
    config = Fields.read(directory / "config.json")
    tokenizer_config = Fields.read(directory / "tokenizer_config.json", optional=True)
    generation = Fields.read(directory / "generation_config.json", optional=True)
    recommended = read_recommendation(generation) if takes_recommendations else Recommendation()
    special_tokens = _special_tokens(directory, tokenizer_config)
    chat_templates = _chat_templates(directory, tokenizer_config)
    file, content = TokenizerFile.found(directory / "tokenizer.json")
    if not is_ordinary_file(content):
        _try_apart(PromptTokensApart(file, special_tokens, chat_templates.sources))
    tokenizer = file.load()
    vocab_size = _vocab_size(config)
    bos, eos = (
        tokenizer.token_to_id(special_tokens.get(token, "")) for token in ("bos_token", "eos_token")
    )
    return TextCheckpoint(
        name=name or model_name(directory),
        model_type=config.text("model_type") or "",
        vocab_size=vocab_size,
        eos_token_ids=_eos_token_ids(
            (generation, config, config.inner("text_config")), eos, vocab_size
        ),
        sampling=recommended.sampling,
        adds_bos_token_id=_missing_bos(tokenizer, tokenizer_config, bos, vocab_size),
        special_tokens=special_tokens,
        chat_templates=chat_templates,
        tokenizer=tokenizer,
        encoded_apart=None if is_ordinary(tokenizer) else file,
        stop_strings=recommended.stop_strings,
    )


def _try_apart(prompts: PromptTokensApart) -> None:
    try:
        prompts.check()
    finally:
        prompts.close()


def _vocab_size(config: Fields) -> int:
    vocab_size = config.whole("vocab_size", IDS) or config.inner("text_config").whole(
        "vocab_size", IDS
    )
    if vocab_size is None:
        raise UnusableModel(f"{config.source} has no vocab_size")
    return vocab_size


def _eos_token_ids(sources: Iterable[Fields], own: int | None, vocab_size: int) -> tuple[int, ...]:
    """What the first of the sources says that says it, and the tokenizer's `own` besides."""
    stated = next(
        (ids for source in sources if (ids := source.wholes("eos_token_id")) is not None), ()
    )
    token_ids = dict.fromkeys(stated if own is None else (*stated, own))
    # transformers takes -1, which some write for none, and whatever else is no token, as what is
    # never drawn.
    never_drawn = [token_id for token_id in token_ids if not 0 <= token_id < vocab_size]
    if never_drawn:
        logger.warning(
            "eos_token_id: %s is outside of the vocabulary of %d",
            reprlib.repr(never_drawn),
            vocab_size,
        )
    return tuple(token_id for token_id in token_ids if token_id not in never_drawn)


def _special_tokens(directory: Path, tokenizer_config: Fields) -> dict[str, str]:
    sources = (tokenizer_config, Fields.read(directory / "special_tokens_map.json", optional=True))
    tokens: dict[str, str] = {}
    for name in SPECIAL_TOKEN_NAMES:
        stated = (_special_token(source, name) for source in sources)
        token = next((one for one in stated if one is not None), None)
        if token is not None:
            tokens[name] = token
    return tokens


def _special_token(source: Fields, name: str) -> str | None:
    is_described = isinstance(source.values.get(name), dict)
    return source.inner(name).text("content") if is_described else source.text(name)


def _missing_bos(
    tokenizer: Tokenizer, tokenizer_config: Fields, bos: int | None, vocab_size: int
) -> int | None:
    if not tokenizer_config.flag("add_bos_token") or bos is None or bos in tokenizer.encode("").ids:
        return None
    if bos >= vocab_size:
        tokenizer_config.refuse(
            "bos_token", f"one of the vocabulary of {vocab_size}, to be added; its id is {bos}"
        )
    return bos


def _chat_templates(directory: Path, tokenizer_config: Fields) -> ChatTemplates:
    return read_chat_templates(
        directory, tokenizer_config.values, lambda path: Fields.read(path, optional=True).values
    )
