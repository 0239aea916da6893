"""Text from outside in what people are told: one line that no terminal obeys, and no longer than a
status can be.
"""

# A status' message travels percent-encoded in trailers, of which clients take 8 KiB unless told
# otherwise.
MAX_STATUS_BYTES = 2048
MAX_QUOTED_CHARACTERS = 80
# Of what another service says in words; a sentence is enough to find the rest in its own log.
MAX_PEERS_BYTES = 300
CUT = "…"


def quoted(text: str, most_characters: int = MAX_QUOTED_CHARACTERS) -> str:
    """`text` in quotation marks, with what does not print escaped; a long one is cut."""
    return repr(text if len(text) <= most_characters else text[: most_characters - 1] + CUT)


def one_line(text: str, most_bytes: int = MAX_STATUS_BYTES) -> str:
    """`text` in one line, with what does not print escaped, cut to so many bytes as a status'
    message travels.
    """
    if len(text) > most_bytes:  # so that what is never shown is not looked at
        text = text[:most_bytes] + CUT
    if not text.isprintable():
        text = escaped(" ".join(text.split()))
    return _cut(text, most_bytes)


def peers_words(text: str) -> str:
    """What another service said, as it may stand in logs, statuses and spans."""
    return one_line(text, MAX_PEERS_BYTES)


def escaped(text: str, kept: str = "") -> str:
    """`text` with what does not print escaped, but for the characters in `kept`."""
    if text.isprintable():
        return text
    return "".join(
        [each if each.isprintable() or each in kept else repr(each)[1:-1] for each in text]
    )


def _cut(text: str, most_bytes: int) -> str:
    if text.isascii() and 3 * len(text) <= most_bytes:
        return text
    num_bytes = num_kept = 0
    for character in text:
        num_bytes += _travelling_bytes(character)
        num_kept += num_bytes <= most_bytes - _travelling_bytes(CUT)
        if num_bytes > most_bytes:
            return text[:num_kept] + CUT
    return text


def _travelling_bytes(character: str) -> int:
    return 1 if character.isascii() and character != "%" else 3 * len(character.encode())
