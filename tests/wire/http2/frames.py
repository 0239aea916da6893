"""Frames of HTTP/2 as a peer writes them."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Any frame."""
    header = bytes((kind, flags)) + stream.to_bytes(4, "big")
    return len(payload).to_bytes(3, "big") + header + payload


def headers(stream: int, block: bytes = b"h", flags: int = END_HEADERS) -> bytes:
    """A header block in one frame."""
    return frame(HEADERS, stream, block, flags)


def prefixed(message: bytes, compressed: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return bytes((compressed,)) + len(message).to_bytes(4, "big") + message


def data(stream: int, *messages: bytes, flags: int = 0) -> bytes:
    """Whole messages in one frame."""
    return frame(DATA, stream, b"".join(map(prefixed, messages)), flags)


def padded(content: bytes, padding: int) -> bytes:
    """A payload with as many bytes of padding."""
    return bytes((padding,)) + content + bytes(padding)


def settings(**values: int) -> bytes:
    """SETTINGS by the names of RFC 9113, in lower case."""
    payload = b"".join(
        SETTING_IDS[name].to_bytes(2, "big") + value.to_bytes(4, "big")
        for name, value in values.items()
    )
    return frame(SETTINGS, 0, payload)


SETTING_IDS = {
    "header_table_size": 1,
    "enable_push": 2,
    "max_concurrent_streams": 3,
    "initial_window_size": 4,
    "max_frame_size": 5,
    "max_header_list_size": 6,
    "unknown": 99,
}


def window_update(stream: int, more: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, stream, more.to_bytes(4, "big"))


def rst_stream(stream: int, code: int = 8) -> bytes:
    """RST_STREAM, which by default cancels."""
    return frame(RST_STREAM, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int = 0) -> bytes:
    """GOAWAY."""
    return frame(GOAWAY, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + b"why")
