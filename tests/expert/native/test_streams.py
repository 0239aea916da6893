"""Streams of the native plane, said byte by byte: what comes at once is one batch, and no peer
holds up another.
"""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import torch
from hpack import Encoder

from moesaic.v1 import expert_pb2
from services.runtime.server import MAX_MESSAGE_BYTES
from services.wire.frames import encode_cancel
from tests.expert.conftest import has_carrier
from tests.expert.expert_client import Carrier, Client, encoded, expected_rows, expert_service
from tests.expert.native.raw_connection import (
    CALL,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    RawConnection,
    frame,
    half_close,
    message,
    opening,
    raw_connection,
    reset,
    window_update,
)

pytestmark = pytest.mark.skipif(not has_carrier(Carrier.NATIVE), reason="needs a compiler")
CANCELLED = expert_pb2.PAIR_FAILURE_REASON_CANCELLED
ROWS = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))


def port_of(service: Client) -> int:
    return service.parts.plane.port


@asynccontextmanager
async def opened_stream(model: Path) -> AsyncIterator[tuple[Client, RawConnection]]:
    """A service with all experts, and a connection whose stream 1 it has granted credit."""
    async with (
        expert_service(model, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        raw.send(opening(1))
        await raw.granted(1)
        yield service, raw


def rows_of(reply: expert_pb2.FrameReply) -> torch.Tensor:
    return torch.frombuffer(bytearray(reply.rows), dtype=torch.float32).view(-1, 32)


async def test_frames_that_are_there_are_computed_together_whoever_sent_them(olmoe: Path) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        raw.send(opening(1), opening(3))
        assert await raw.granted(1) == await raw.granted(3)
        raw.send(
            message(1, encoded(0, ROWS, [(0, 1), (3, 2)], layer=2)),
            message(3, encoded(7, ROWS[1:3], [(0, 2), (1, 1)], layer=1)),
            message(1, encoded(1, ROWS[:2], [(1, 5)], layer=2)),
            message(3, encoded(8, ROWS, [(2, 2)], layer=2, checksum=True)),
        )
        first, second = await raw.replies(1, 2)
        other, third = await raw.replies(3, 2)
        # The layer that has waited longest goes first; the three of it go together.
        assert [(one.frame_id, one.batch_frames) for one in (first, second)] == [(0, 3), (1, 3)]
        assert [(one.frame_id, one.batch_frames) for one in (third, other)] == [(7, 1), (8, 3)] or [
            (one.frame_id, one.batch_frames) for one in (other, third)
        ] == [(8, 3), (7, 1)]
        counts = service.parts.plane.counts()
        assert (counts.computed_frames, counts.computed_pairs) == (4, 6)
        assert counts.batches == [0, 1, 1]
        expected = expected_rows(service.parts.checkpoint, 2, ROWS, [(0, 1), (3, 2)])
        assert torch.allclose(rows_of(first), expected, atol=1e-5)


async def test_bits_do_not_depend_on_the_batch(olmoe: Path) -> None:
    pairs = [(0, 1), (3, 2), (2, 1), (1, 1)]
    async with opened_stream(olmoe) as (_, raw):
        raw.send(message(1, encoded(0, ROWS, pairs)))
        (alone,) = await raw.replies(1, 1)
        raw.send(*[message(1, encoded(number, ROWS, pairs)) for number in range(1, 6)])
        together = (await raw.replies(1, 6))[1:]
        assert {reply.batch_frames for reply in together} == {5}
        assert {reply.rows for reply in together} == {alone.rows}


async def test_a_frame_that_waits_is_dropped_when_all_its_requests_are_cancelled(
    olmoe: Path,
) -> None:
    async with opened_stream(olmoe) as (_, raw):
        raw.send(
            message(1, encoded(0, ROWS, [(0, 1)])),
            message(1, encoded(1, ROWS, [(0, 1), (1, 1)], requests=[5, 6])),
            message(1, encoded(2, ROWS, [(0, 1)], requests=[5, 7], layer=0)),
            message(1, encode_cancel([5])),
            message(1, encode_cancel([6])),
            message(1, encoded(3, ROWS, [(0, 1)], requests=[5])),
        )
        replies = {reply.frame_id: reply for reply in await raw.replies(1, 4)}
        (failure,) = replies.pop(1).failures
        assert (failure.reason, list(failure.pairs)) == (CANCELLED, [0, 1])
        assert all(len(reply.rows) == 128 for reply in replies.values())


async def test_bytes_that_are_no_message_end_the_stream_after_the_frames_before(
    olmoe: Path,
) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        raw.send(opening(1), opening(3))
        await raw.granted(1)
        raw.send(
            message(1, encoded(0, ROWS, [(0, 1)])),
            message(1, encoded(1, ROWS, [(0, 1)], requests=[1])),
            message(1, b"\xff\xff"),
        )
        code, words = await raw.status(1)
        assert code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert words
        assert {reply.frame_id for reply in await raw.replies(1, 2)} == {0, 1}
        assert raw.resets[1] == 0  # the client had not ended its side
        raw.send(message(3, encoded(9, ROWS, [(0, 1)])), half_close(3))
        assert (await raw.status(3))[0] == 0
        assert len(await raw.replies(3, 1)) == 1


async def test_what_was_sent_before_the_stream_is_admitted_is_answered(olmoe: Path) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        sent = [message(1, encoded(number, ROWS, [(0, 1)])) for number in range(3)]
        raw.send(opening(1), *sent, half_close(1))
        assert await raw.status(1) == (0, "")
        assert [reply.frame_id for reply in await raw.replies(1, 3)] == [0, 1, 2]
        assert raw.headers[1][":status"] == "200"
        assert not raw.responses[1][0].HasField("reply")


async def test_a_peer_that_does_not_read_is_not_read_from_and_holds_nobody_up(olmoe: Path) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service), window=100) as slow,
        raw_connection(port_of(service)) as other,
    ):
        slow.send(opening(1))
        await slow.granted(1)
        for number in range(300):
            slow.send(message(1, encoded(number, ROWS, [(0, 1)])))
        other.send(opening(1))
        await other.granted(1)
        other.send(message(1, encoded(0, ROWS, [(0, 1)])))
        await other.replies(1, 1)
        while service.parts.plane.counts().computed_frames < 60:
            other.send(message(1, encoded(0, ROWS, [(0, 1)])))
            await other.replies(1, len(await other.replies(1, 0)) + 1)
        assert len(await slow.replies(1, 0)) < 3
        slow.send(window_update(1, 1 << 30))
        assert [one.frame_id for one in await slow.replies(1, 300)] == list(range(300))


async def test_usual_frames_are_answered_while_the_interpreter_is_busy(olmoe: Path) -> None:
    async with opened_stream(olmoe) as (_, raw):
        raw.send(message(1, encoded(0, ROWS, [(0, 1), (1, 5)])))
        heard = raw.wait_without_the_loop(2 * ROWS[0].nbytes)
        (reply,) = await raw.replies(1, 1)
        assert reply.rows in heard


async def test_more_unusual_frames_than_python_has_time_for_wait_in_the_socket(
    olmoe: Path,
) -> None:
    async with opened_stream(olmoe) as (_, raw):
        num_frames = 6000  # above the bound of what is handed over
        refused = encoded(0, ROWS[:1, :1], [(0, 0)])
        for _ in range(num_frames):
            raw.send(message(1, refused))
        replies = await raw.replies(1, num_frames)
        assert all(reply.HasField("error") for reply in replies)


async def test_frames_of_a_stream_that_is_reset_are_forgotten(olmoe: Path) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        raw.send(opening(1), opening(3))
        await raw.granted(3)
        raw.send(
            message(1, encoded(0, ROWS, [(0, 1)])),
            message(3, encoded(1, ROWS, [(0, 1)])),
            message(1, encoded(2, ROWS, [(0, 1)], layer=9)),
            reset(1),
        )
        (reply,) = await raw.replies(3, 1)
        assert reply.batch_frames == 1
        assert not [one for one in raw.responses[1] if one.HasField("reply")]


async def test_a_call_whose_time_is_up_ends_with_its_status(olmoe: Path) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        raw.send(opening(1, ("grpc-timeout", "20m")), opening(3, ("grpc-timeout", "1H")))
        raw.send(opening(5, ("grpc-timeout", "soon")))
        code, words = await raw.status(1)
        assert (code, words) == (4, "the call's time is up")
        for stream in (3, 5):
            raw.send(message(stream, encoded(0, ROWS, [(0, 1)])))
            await raw.replies(stream, 1)


async def test_a_message_above_the_limit_resets_its_stream_alone(olmoe: Path) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        raw.send(opening(1), opening(3))
        await raw.granted(1)
        raw.send(frame(DATA, 0, 1, struct.pack(">BI", 0, MAX_MESSAGE_BYTES + 1)))
        while 1 not in raw.resets:
            await raw.progress()
        assert raw.resets[1] == ENHANCE_YOUR_CALM  # for clients RESOURCE_EXHAUSTED
        raw.send(message(3, encoded(0, ROWS, [(0, 1)])))
        await raw.replies(3, 1)


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ((":path", "/moesaic.v1.ExpertService/Describe"), 12, "serves /moesaic.v1.ExpertService/D"),
        (("grpc-encoding", "gzip"), 12, "grpc-encoding is gzip; this port takes identity alone"),
        ((":method", "GET"), None, "415"),
        (("content-type", "text/html"), None, "415"),
        (("content-type", "application/grpcx"), None, "415"),
    ],
)
async def test_another_call_is_refused_and_the_connection_goes_on(
    olmoe: Path, changed: tuple[str, str], code: int | None, words: str
) -> None:
    call = tuple((dict(CALL) | dict([changed])).items())
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        raw.send(opening(1, call=call), opening(3))
        if code is None:
            while 1 not in raw.ended:
                await raw.progress()
            assert raw.headers[1] == {":status": words}
        else:
            status = await raw.status(1)
            assert status[0] == code
            assert words in status[1]
        raw.send(message(3, encoded(0, ROWS, [(0, 1)])))
        await raw.replies(3, 1)


async def test_header_blocks_build_on_those_that_open_no_stream(olmoe: Path) -> None:
    encoder, later = Encoder(), ("later", "word")
    trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, encoder.encode([later]))
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        raw.send(opening(1), trailers)
        raw.send(frame(HEADERS, END_HEADERS, 3, encoder.encode((*CALL, later))))
        assert await raw.granted(3)


async def test_headers_that_are_none_end_their_connection_alone(olmoe: Path) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
        raw_connection(port_of(service)) as other,
    ):
        raw.send(frame(HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff"))
        other.send(opening(1))
        await other.granted(1)
        while not raw.is_closed:
            await raw.progress()
        other.send(message(1, encoded(0, ROWS, [(0, 1)])))
        await other.replies(1, 1)


async def test_many_streams_share_a_connection(olmoe: Path) -> None:
    async with (
        expert_service(olmoe, Carrier.NATIVE, preload="all") as service,
        raw_connection(port_of(service)) as raw,
    ):
        streams = range(1, 101, 2)
        raw.send(*map(opening, streams))
        for number in range(3):
            raw.send(*[message(one, encoded(number, ROWS, [(0, 1)])) for one in streams])
        raw.send(*map(half_close, streams))
        for one in streams:
            assert await raw.status(one) == (0, "")
            assert sorted(reply.frame_id for reply in await raw.replies(one, 3)) == [0, 1, 2]
