"""The file of clients' tokens: who has one, and what each may. Tokens themselves are in no file."""

import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from services.runtime.read_again import ReadAgain
from services.runtime.roles import CLIENT_NAME
from services.runtime.text_files import Unreadable, read_text
from services.wire.errors import BadState

NAME = re.compile(CLIENT_NAME)
HASH = re.compile(r"[0-9a-f]{64}")
RATE = "requests_per_second"
TOKEN_BYTES = 32
FORM = f"it should be NAME HASH, and {RATE}=X where that client has a rate of its own"


@dataclass(frozen=True)
class TokenHolder:
    """A client who has a token. Several tokens may be one client's, so that it can change them."""

    name: str
    digest: bytes
    requests_per_second: float | None = None


# Compared with, where nobody has the token that is shown, so that this takes as long.
_NOBODY = TokenHolder("", secrets.token_bytes(TOKEN_BYTES))


class TokenFile:
    """Looks clients up by their tokens, in a file that is read again when it has changed.

    A line for each token: a name, the token's hash as `digest_of` makes it in hexadecimal, and
    what is said of the client. Empty lines and those from # on say nothing. Raises BadState where
    the file cannot be read, naming the line; once it could be, that stays in use.
    """

    def __init__(self, file: Path) -> None:
        self._holders = ReadAgain((file,), lambda: read_holders(file))

    def holder_of(self, token: str) -> TokenHolder | None:
        """Whose token it is, if it is anybody's."""
        digest = digest_of(token)
        holder = self._holders.current().get(digest, _NOBODY)
        return holder if hmac.compare_digest(holder.digest, digest) else None


def digest_of(token: str) -> bytes:
    """What is kept of a token, which is so long and random that no salt is needed."""
    return blake2b(token.encode(), digest_size=32, person=b"moesaic token").digest()


def new_token() -> str:
    """A token of 32 random bytes."""
    return secrets.token_hex(TOKEN_BYTES)


def line_of(name: str, token: str, requests_per_second: float | None) -> str:
    """The line of a new token."""
    rate = "" if requests_per_second is None else f" {RATE}={requests_per_second:g}"
    return f"{name} {digest_of(token).hex()}{rate}\n"


def read_holders(file: Path) -> dict[bytes, TokenHolder]:
    """Everybody in the file, by the digests of their tokens."""
    try:
        return {holder.digest: holder for holder in _parsed(file, read_text(file))}
    except Unreadable as error:
        raise BadState(f"the tokens cannot be read: {error}") from error


def _parsed(file: Path, text: str) -> Iterator[TokenHolder]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            yield _holder(*words)
        except (TypeError, ValueError):
            raise Unreadable(f"{file}:{number}: {FORM}") from None


def _holder(name: str, digest: str, *quotas: str) -> TokenHolder:
    if not NAME.fullmatch(name) or not HASH.fullmatch(digest):
        raise ValueError
    rate: float | None = None
    for quota in quotas:
        key, _, value = quota.partition("=")
        rate = float(value)
        if key != RATE or not 0 < rate < float("inf"):
            raise ValueError
    return TokenHolder(name, bytes.fromhex(digest), rate)
