"""Small tokenizers of every decoder family that checkpoints use."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from services.gateway.checkpoint import read_checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL

_PIECES = ("▁", "▁the", "▁a", "a", "b", "c", "th", "the", "▁▁", "é", ".", "▁b")


def byte_level() -> Tokenizer:
    """The embedded model's: GPT-2's bytes as characters."""
    return read_checkpoint(EMBEDDED_MODEL).tokenizer


def byte_fallback() -> Tokenizer:
    """Llama's and Mixtral's: pieces with a ▁ for the space, and one token for each other byte."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *_PIECES]
    vocabulary = {name: token_id for token_id, name in enumerate(names)}
    merges = [("▁", "the"), ("▁", "a"), ("t", "h"), ("th", "e"), ("▁", "▁"), ("▁", "b")]
    known = [(left, right) for left, right in merges if left in vocabulary and right in vocabulary]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, known, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return tokenizer


def metaspace() -> Tokenizer:
    """T5's kind: the first token's space is stripped."""
    tokenizer = Tokenizer(
        models.WordLevel({name: i for i, name in enumerate(_PIECES)}, unk_token=".")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return tokenizer


def llama_2s() -> Tokenizer:
    """Mixtral's and Phi-3.5's as published: a normaliser puts the ▁ before the text, the decoder
    strips it.
    """
    tokenizer = byte_fallback()
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT's: words but for their continuations, and no space before a full stop."""
    names = ("[UNK]", "the", "##re", "a", "##b", ".", "'", "s", "don", "##t", "##")
    tokenizer = Tokenizer(
        models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.add_special_tokens([AddedToken("[SEP]", special=True)])
    return tokenizer
