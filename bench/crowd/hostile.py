"""What strangers send to a gateway to cost it more than it costs them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.crowd.wire import GENERATE
from moesaic.v1 import generation_pb2 as pb
from services.runtime.call_blocks import request_block
from services.wire.header_blocks import encode_headers

TOKENIZE = "/moesaic.v1.GenerationService/Tokenize"
MANY_BYTES = 15 << 20
# Below what a gateway takes of any request, for a context of the shipped model's length.
ALL_BYTES = 90_000
NUM_FIELDS, FIELD_BYTES = 30, 400


@dataclass(frozen=True)
class Flood:
    """Calls of one kind, so many at once; `request` is made for a context of so many tokens."""

    name: str
    num_at_once: int
    request: Callable[[int], bytes] | None
    path: str = GENERATE
    metadata: tuple[tuple[str, str], ...] = ()
    is_finished: bool = True
    # Every call is given up after the pause, and another one begun.
    cancels: bool = False
    # Likewise, by closing the connection.
    vanishes: bool = False
    pause_seconds: float = 0.005

    @property
    def block(self) -> bytes:
        """What begins a call."""
        return request_block(self.path, "gateway") + encode_headers(self.metadata)


def message_of(flood: Flood, max_context: int) -> bytes | None:
    """The request of each of its calls, if they have one."""
    return None if flood.request is None else flood.request(max_context)


def _text(text: str) -> bytes:
    return pb.GenerateRequest(text=text).SerializeToString()


def _ids(ids: Iterable[int]) -> bytes:
    return pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids)).SerializeToString()


def _chat(num_messages: int, content: str, role: str = "user") -> bytes:
    made = pb.GenerateRequest()
    for _ in range(num_messages):
        made.chat.messages.add(role=role, content=content)
    return made.SerializeToString()


def _empty_messages(_: int) -> bytes:
    """As many as go into the bytes: each is two of them."""
    empty = pb.GenerateRequest()
    empty.chat.messages.extend(pb.ChatMessage() for _ in range(ALL_BYTES // 2))
    return empty.SerializeToString()


def _resume(max_context: int) -> bytes:
    made = pb.GenerateRequest(token_ids=pb.TokenIds(ids=[5]))
    made.resume.seed = 1
    made.resume.generated_token_ids.extend([5] * (max_context - 8))
    return made.SerializeToString()


def _stops(_: int) -> bytes:
    made = pb.GenerateRequest(text="Once")
    made.stop.stop_strings.extend(["ab" * 256] * 16)
    made.stop.stop_token_ids.extend(range(64))
    return made.SerializeToString()


def _tokenize(max_context: int) -> bytes:
    return pb.TokenizeRequest(text="x1 " * (8 * max_context // 3)).SerializeToString()


# A third as many messages as the context takes tokens, at least one token each and what stands
# around them; the control token is disguised, and all is rendered twice.
FLOODS = (
    Flood("calls without a request", 2_000, None, is_finished=False),
    Flood("calls that are given up at once", 500, lambda _: _text("Once"), cancels=True),
    Flood(
        "connections that vanish with calls",
        *(2_000, lambda _: _text("Once")),
        vanishes=True,
        pause_seconds=0.05,
    ),
    Flood("connections that vanish", 4, None, is_finished=False, vanishes=True, pause_seconds=0),
    Flood(
        "15 MB of token ids", 12, lambda _: _ids([4_000]) + bytes(MANY_BYTES), pause_seconds=0.02
    ),
    Flood("token ids of a whole context", 200, lambda context: _ids([4_000] * (context - 9))),
    Flood("text of 8 bytes a token", 100, lambda context: _text("x1 " * (8 * context // 3))),
    Flood("text that no tokenizer splits", 100, lambda context: _text("\u0301" * (4 * context))),
    Flood("text to be tokenised alone", 100, _tokenize, path=TOKENIZE),
    Flood("chats of many messages", 100, lambda context: _chat(2 * context // 3, "x")),
    Flood(
        "chats that spell control tokens",
        100,
        lambda context: _chat(2 * context // 9, "<|user|>"),
    ),
    Flood("chats of unknown roles", 100, lambda context: _chat(context // 4, "x", "stranger")),
    Flood("chats of empty messages", 100, _empty_messages),
    Flood("tokens to go on after", 100, _resume),
    Flood("stop strings and stop tokens", 200, _stops),
    Flood(
        "12 KB of headers",
        200,
        lambda _: _text("Once"),
        metadata=tuple((f"x-{number}", "v" * FIELD_BYTES) for number in range(NUM_FIELDS)),
    ),
)
