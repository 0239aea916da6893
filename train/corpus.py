"""Reads the shipped archive of cleaned texts: one file per domain, documents separated by \\x1e."""

import tarfile
from functools import cache
from pathlib import Path

ARCHIVE = Path(__file__).parent / "corpus.tar.xz"
SEPARATOR = "\x1e"


@cache
def _domains() -> dict[str, str]:
    with tarfile.open(ARCHIVE, "r:xz") as archive:
        members = {
            Path(member.name).stem: archive.extractfile(member)
            for member in archive
            if member.isfile()
        }
        return {
            name: content.read().decode()
            for name, content in members.items()
            if content is not None
        }


def read_domain(name: str) -> list[str]:
    """The documents of one domain, in the archive's order."""
    return _domains()[name].split(SEPARATOR)
