"""`python -m tests.wire.fuzz --seconds 60`: altered frames and replies, read natively and by the
generated classes.

Each message is a seed's, so that a failure is found again. It is most worth with a codec built with
sanitizers, which `scripts/check-sanitised` does.
"""

import random
import sys
from collections.abc import Sequence

from moesaic.v1 import common_pb2, expert_pb2
from services.wire import native
from tests.fuzzing import fuzz

BATCH = 1000  # messages between two looks at the clock


def frame(draw: random.Random) -> bytes:
    """A request with a frame of random fields."""
    num_pairs = draw.randrange(6)
    message = expert_pb2.Frame(
        frame_id=draw.getrandbits(64),
        layer=draw.getrandbits(draw.choice((3, 32))),
        dtype=draw.choice(common_pb2.ElementType.values()),
        num_rows=draw.getrandbits(draw.choice((3, 32))),
        pair_rows=draw.randbytes(4 * num_pairs),
        pair_experts=draw.randbytes(4 * num_pairs),
        remaining_nanos=draw.getrandbits(draw.choice((10, 64))),
        traceparent="x" * draw.randrange(60),
        requests=[draw.getrandbits(draw.choice((5, 64))) for _ in range(draw.randrange(4))],
        pair_weights=draw.randbytes(4 * num_pairs) if draw.random() < 0.3 else b"",
        rows=draw.randbytes(draw.choice((0, 7, 300))),
    )
    return expert_pb2.DispatchRequest(frame=message).SerializeToString()


def reply(draw: random.Random) -> bytes:
    """A response with a reply of random fields."""
    timings = expert_pb2.ServerTimings(
        decode_nanos=draw.getrandbits(40), encode_nanos=draw.getrandbits(64)
    )
    message = expert_pb2.FrameReply(
        frame_id=draw.getrandbits(64),
        timings=timings if draw.random() < 0.7 else None,
        batch_frames=draw.getrandbits(32),
        rows=draw.randbytes(draw.choice((0, 7, 300))),
    )
    return expert_pb2.DispatchResponse(
        reply=message, granted_pairs=draw.getrandbits(20)
    ).SerializeToString()


def altered(message: bytes, draw: random.Random) -> bytes:
    """The message with bytes changed, put in, taken out, doubled, or its end cut off."""
    changed = bytearray(message)
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(changed) + 1)
        match draw.randrange(5):
            case 0 if at < len(changed):
                changed[at] = draw.randrange(256)
            case 1:
                changed[at:at] = draw.randbytes(draw.randrange(1, 12))
            case 2:
                del changed[at : at + draw.randrange(1, 12)]
            case 3:
                changed += changed[at : at + 40]
            case 4:
                del changed[at:]
    return bytes(changed)


def check(seed: int) -> None:
    """Read what the seed makes in both ways. Raises AssertionError where they read different
    things.
    """
    draw = random.Random(seed)
    request, response = altered(frame(draw), draw), altered(reply(draw), draw)
    if (fields := native.decode_request(request)) is not None:
        read = expert_pb2.DispatchRequest.FromString(request).frame
        assert (
            fields[0] == read.frame_id
            and fields[4] == read.rows
            and fields[10] == tuple(read.requests)
        )
        assert fields[5:8] == (read.pair_rows, read.pair_experts, read.pair_weights)
    if (answer := native.decode_response(response)) is not None:
        whole = expert_pb2.DispatchResponse.FromString(response)
        assert answer[0] == whole.granted_pairs
        assert (answer[1] is not None) == whole.HasField("reply")
        if answer[1] is not None:
            assert answer[1][0] == whole.reply.frame_id
            assert bytes(answer[1][1]) == whole.reply.rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Try messages until the time is up; the exit code."""
    if not native.AVAILABLE:
        print("the native codec was not built", file=sys.stderr)
        return 1
    return fuzz(check, "altered frames and replies, with the native codec", arguments, batch=BATCH)


if __name__ == "__main__":
    sys.exit(main())
