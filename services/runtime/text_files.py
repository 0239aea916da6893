"""Text files that a user names: what they say, or in a line why that cannot be told."""

import sys
from pathlib import Path

STANDARD = Path("-")
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Unreadable(ValueError):
    """A file that is not there, cannot be read or is none of its kind; the message names it, and
    the line at fault.
    """


def read_text(file: Path) -> str:
    """The text of a file, or of stdin for `-`: UTF-8, without a byte order mark, its lines ended by
    line feeds alone.

    Raises Unreadable.
    """
    name = "stdin" if file == STANDARD else str(file)
    try:
        content = sys.stdin.buffer.read() if file == STANDARD else file.read_bytes()
    except OSError as error:
        raise Unreadable(f"{name}: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if content.startswith(UTF_16_MARKS) else "no UTF-8"
        line = content.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"{name}:{line}: it is {kind}; it should be text in UTF-8") from error
    return text.replace("\r\n", "\n")
