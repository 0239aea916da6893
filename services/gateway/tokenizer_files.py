"""A checkpoint's tokenizer.json: read as it is, and by another process as the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer

from services.gateway.tokenizer_parts import refuse_parts
from services.metadata.bounded_files import read_bounded
from services.metadata.refusals import UnusableModel, in_one_line
from services.metadata.tokenizer_digest import digest_of

# Twice what the largest of served families have.
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class TokenizerFile:
    """A file that is there and not too large, and what it held."""

    path: Path
    digest: str

    @classmethod
    def found(cls, path: Path) -> tuple[Self, bytes]:
        """The file and its content. Raises UnusableModel where it is missing or too large."""
        if not path.is_file():
            raise UnusableModel(
                f"{path} is missing; a checkpoint without a fast tokenizer cannot be served"
            )
        content = _content(path)
        return cls(path, digest_of(content)), content

    def load(self) -> Tokenizer:
        """The tokenizer. Raises UnusableModel where the file holds none or another one now, or one
        whose parts do too much.
        """
        content = _content(self.path)
        if digest_of(content) != self.digest:
            raise UnusableModel(f"{self.path} is another than at the start")
        tokenizer = _tokenizer(content, self.path)
        refuse_parts(tokenizer, self.path)
        # A training run may leave these on; a prompt is served whole or refused.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise UnusableModel(f"{path} cannot be read: {in_one_line(error)}") from error


def _tokenizer(content: bytes, path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(content)
    # the boundary: tokenizers raises plain exceptions, and panics that are no Exception
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UnusableModel(f"{path} is no tokenizer: {in_one_line(error)}") from error
