"""The compiled type is as its stub describes it, and bears being misused."""

import ast
import inspect
import socket
from pathlib import Path

import pytest

from services.router import peers
from tests.router.transports import NATIVE

pytestmark = NATIVE

STUB = Path(inspect.getfile(peers)).parents[1] / "_streams.pyi"


def test_the_stub_names_what_there_is() -> None:
    from services.router import _streams

    (described,) = (
        node
        for node in ast.parse(STUB.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "Stream"
    )
    named = {node.name for node in described.body if isinstance(node, ast.FunctionDef)}
    there = {name for name in vars(_streams.Stream) if not name.startswith("__")}
    assert named - {"__init__"} == there


def test_a_stream_that_was_closed_takes_nothing_and_says_so() -> None:
    from services.router import _streams

    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        stream = _streams.Stream(ours.detach(), b"\x82", 1 << 20)
        stream.close()
        stream.close()
        assert stream.is_over and stream.has_news and not stream.wants_write
        assert not stream.send(b"frame")
        assert stream.receive() == stream.take_headers() == []
        assert (stream.fileno(), stream.reset_code, stream.why()) == (-1, None, "it was closed")
        stream.flush()


def test_what_is_no_message_is_a_type_error() -> None:
    from services.router import _streams

    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        stream = _streams.Stream(ours.detach(), b"\x82", 1 << 20)
        with pytest.raises(TypeError):
            stream.send("frame")  # type: ignore[arg-type]
        stream.close()
    with pytest.raises(TypeError):
        _streams.Stream()  # type: ignore[call-arg]
