"""The codec speaks exactly the protobuf of expert.proto, whatever the shapes, and refuses what is
broken.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from moesaic.v1 import common_pb2, expert_pb2
from services.wire import native
from services.wire.bad_frame import BadFrame
from services.wire.errors import InvalidRequest
from services.wire.frames import (
    ELEMENT_TYPES,
    decode_request,
    decode_response,
    encode_cancel,
    encode_frame,
    encode_grant,
    encode_reply,
)
from services.wire.outcomes import FrameError, PairFailure, Timings
from services.wire.received import Cancel, ReceivedFrame
from tests.wire import ways

UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
DTYPES = st.sampled_from(list(ELEMENT_TYPES))
FAILURES = st.lists(
    st.builds(
        PairFailure,
        st.sampled_from(expert_pb2.PairFailureReason.values()[1:]),
        st.lists(UINT32, max_size=4).map(tuple),
    ),
    max_size=3,
)
# Fields that a later version of the protos may add: varint, fixed64, bytes, fixed32, and a group.
UNKNOWN = [
    b"\xa8\x06\x05",
    b"\xa9\x06" + bytes(8),
    b"\xaa\x06\x02ab",
    b"\xad\x06" + bytes(4),
    b"\xab\x06\xac\x06",
]


@pytest.fixture(autouse=True, scope="module", params=ways.WAYS)
def _each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    with ways.used(request.param):
        yield


@st.composite
def tensors(draw: st.DrawFn, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Any rows, [0-7, 1-9]; the bits are drawn too, so that there are infinities, NaNs and
    subnormals.
    """
    dtype = dtype or draw(DTYPES)
    shape = (draw(st.integers(0, 7)), draw(st.integers(1, 9)))
    bits = np.random.default_rng(draw(UINT32)).bytes(shape[0] * shape[1] * dtype.itemsize)
    return (
        torch.frombuffer(bytearray(bits), dtype=dtype).view(shape)
        if bits
        else torch.empty(shape, dtype=dtype)
    )


@st.composite
def frames(draw: st.DrawFn) -> tuple[torch.Tensor, expert_pb2.Frame]:
    """Any frame, as the generated class holds it, with its rows."""
    rows = draw(tensors())
    pairs = draw(st.lists(st.tuples(UINT32, UINT32), max_size=9))
    message = expert_pb2.Frame(
        frame_id=draw(UINT64),
        layer=draw(UINT32),
        dtype=ELEMENT_TYPES[rows.dtype],
        num_rows=len(rows),
        pair_rows=np.array([row for row, _ in pairs], dtype="<u4").tobytes(),
        pair_experts=np.array([expert for _, expert in pairs], dtype="<u4").tobytes(),
        remaining_nanos=draw(UINT64),
        traceparent=draw(st.text(max_size=60)),
        requests=draw(st.lists(UINT64, max_size=5)),
        pair_weights=np.array(
            draw(st.lists(st.floats(width=32), max_size=9)), dtype="<f4"
        ).tobytes(),
        rows=raw(rows),
    )
    return rows, message


def raw(rows: torch.Tensor) -> bytes:
    return rows.reshape(-1).view(torch.uint8).numpy().tobytes()


def encoded(
    rows: torch.Tensor, message: expert_pb2.Frame, row_indices: np.ndarray | None = None
) -> bytes:
    return encode_frame(
        frame_id=message.frame_id,
        layer=message.layer,
        rows=rows,
        pair_rows=np.frombuffer(message.pair_rows, "<u4"),
        pair_experts=np.frombuffer(message.pair_experts, "<u4"),
        remaining_nanos=message.remaining_nanos,
        traceparent=message.traceparent,
        requests=message.requests,
        pair_weights=np.frombuffer(message.pair_weights, "<f4") if message.pair_weights else None,
        row_indices=row_indices,
    )


def assert_same_frame(received: ReceivedFrame | Cancel, message: expert_pb2.Frame) -> None:
    assert isinstance(received, ReceivedFrame)
    assert ELEMENT_TYPES[received.dtype] == message.dtype
    assert received.pair_rows.tobytes() == message.pair_rows
    assert received.pair_experts.tobytes() == message.pair_experts
    assert received.pair_weights.tobytes() == message.pair_weights
    assert bytes(received.rows_bytes) == message.rows
    assert list(received.requests) == list(message.requests)
    for name in ("frame_id", "layer", "num_rows", "remaining_nanos", "traceparent"):
        assert getattr(received, name) == getattr(message, name)


@given(frames())
def test_a_frame_is_the_message_that_the_generated_class_would_write(
    frame: tuple[torch.Tensor, expert_pb2.Frame],
) -> None:
    rows, message = frame
    assert encoded(rows, message) == expert_pb2.DispatchRequest(frame=message).SerializeToString()


@given(tensors(), st.lists(st.integers(0, 6)))
def test_of_many_rows_those_that_are_asked_for_are_written(
    rows: torch.Tensor, wanted: list[int]
) -> None:
    indices = np.array([index for index in wanted if index < len(rows)], dtype=np.int64)
    chosen = rows[torch.from_numpy(indices)]
    message = expert_pb2.Frame(
        dtype=ELEMENT_TYPES[rows.dtype], num_rows=len(chosen), rows=raw(chosen)
    )
    assert (
        encoded(rows, message, indices)
        == expert_pb2.DispatchRequest(frame=message).SerializeToString()
    )


@given(frames())
def test_a_frame_is_read_as_the_generated_class_reads_it(
    frame: tuple[torch.Tensor, expert_pb2.Frame],
) -> None:
    rows, message = frame
    received = decode_request(expert_pb2.DispatchRequest(frame=message).SerializeToString())
    assert_same_frame(received, message)
    assert isinstance(received, ReceivedFrame)
    view = received.rows(rows.shape[1])
    assert view.dtype == rows.dtype
    assert view.shape == rows.shape
    assert raw(view) == message.rows


@given(
    frames(),
    st.lists(st.sampled_from(UNKNOWN), max_size=3),
    st.lists(st.sampled_from(UNKNOWN), max_size=3),
)
def test_fields_of_a_later_version_are_passed_over(
    frame: tuple[torch.Tensor, expert_pb2.Frame], before: list[bytes], after: list[bytes]
) -> None:
    _, message = frame
    inner = b"".join([*before, message.SerializeToString(), *after])
    outer = b"\x0a" + varint(len(inner)) + inner
    assert_same_frame(decode_request(outer), message)
    assert_same_frame(decode_request(b"".join([*before, outer, *after])), message)


@given(frames(), st.binary(max_size=8), st.integers(0))
def test_rows_are_found_wherever_they_stand(
    frame: tuple[torch.Tensor, expert_pb2.Frame], first_rows: bytes, seed: int
) -> None:
    """Out of order, or given twice: then the last one holds."""
    _, message = frame
    rows_field = b"\x7a" + varint(len(message.rows)) + message.rows
    small = expert_pb2.Frame.FromString(message.SerializeToString())
    small.ClearField("rows")
    for inner in (
        rows_field + small.SerializeToString(),
        b"\x7a" + varint(len(first_rows)) + first_rows + small.SerializeToString() + rows_field,
    ):
        assert_same_frame(decode_request(b"\x0a" + varint(len(inner)) + inner), message)


@given(frames(), st.lists(UINT64, max_size=3))
def test_of_a_frame_and_a_cancel_the_last_one_holds(
    frame: tuple[torch.Tensor, expert_pb2.Frame], requests: list[int]
) -> None:
    rows, message = frame
    one, other = encoded(rows, message), encode_cancel(requests)
    assert decode_request(one + other) == Cancel(tuple(requests))
    assert_same_frame(decode_request(other + one), message)


@given(st.lists(UINT64, max_size=5))
def test_a_cancel_survives_the_way(requests: list[int]) -> None:
    data = encode_cancel(requests)
    assert (
        data
        == expert_pb2.DispatchRequest(
            cancel=expert_pb2.CancelRequests(requests=requests)
        ).SerializeToString()
    )
    assert decode_request(data) == Cancel(tuple(requests))


@given(
    frame_id=UINT64,
    rows=st.none() | tensors(),
    failures=FAILURES,
    error=st.none() | st.builds(FrameError, UINT32, st.text(max_size=20)),
    timings=st.none() | st.builds(Timings, UINT64, UINT64, UINT64, UINT64),
    batch_frames=UINT32,
    granted_pairs=UINT64,
)
def test_a_reply_is_the_same_message_both_ways(
    frame_id: int,
    rows: torch.Tensor | None,
    failures: list[PairFailure],
    error: FrameError | None,
    timings: Timings | None,
    batch_frames: int,
    granted_pairs: int,
) -> None:
    data = encode_reply(
        frame_id=frame_id,
        rows=rows,
        failures=failures,
        error=error,
        timings=timings,
        batch_frames=batch_frames,
        granted_pairs=granted_pairs,
    )
    message = expert_pb2.DispatchResponse(
        reply=expert_pb2.FrameReply(
            frame_id=frame_id,
            failures=[
                expert_pb2.PairFailure(reason=failure.reason, pairs=failure.pairs)
                for failure in failures
            ],
            error=None
            if error is None
            else expert_pb2.FrameError(status_code=error.status_code, message=error.message),
            timings=None if timings is None else expert_pb2.ServerTimings(**timings._asdict()),
            batch_frames=batch_frames,
            rows=b"" if rows is None else raw(rows),
        ),
        granted_pairs=granted_pairs,
    )
    assert data == message.SerializeToString()
    response = decode_response(data)
    reply = response.reply
    assert reply is not None
    assert response.granted_pairs == granted_pairs
    assert (reply.frame_id, reply.batch_frames) == (frame_id, batch_frames)
    assert reply.timings == (Timings() if timings is None else timings)
    assert (list(reply.failures), reply.error) == (failures, error)
    assert bytes(reply.rows_bytes) == message.reply.rows
    if rows is not None:
        assert reply.rows(rows.dtype, rows.shape[1]).shape == rows.shape


@given(UINT64)
def test_a_response_may_only_grant(granted_pairs: int) -> None:
    response = decode_response(encode_grant(granted_pairs))
    assert response.reply is None
    assert response.granted_pairs == granted_pairs


@given(frames(), st.data())
def test_broken_bytes_are_refused_exactly_where_the_generated_class_refuses_them(
    frame: tuple[torch.Tensor, expert_pb2.Frame], data: st.DataObject
) -> None:
    broken = bytearray(encoded(*frame))
    if broken and data.draw(st.booleans()):
        del broken[data.draw(st.integers(0, len(broken) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    assert_read_alike(bytes(broken))


@given(st.binary(max_size=9), st.integers(0, 9), st.data())
def test_a_broken_reply_is_refused_exactly_where_the_generated_class_refuses_it(
    raw_rows: bytes, nanos: int, data: st.DataObject
) -> None:
    reply = expert_pb2.FrameReply(
        frame_id=300,
        timings=expert_pb2.ServerTimings(queue_nanos=nanos),
        batch_frames=2,
        rows=raw_rows,
    )
    message = expert_pb2.DispatchResponse(reply=reply, granted_pairs=300).SerializeToString()
    broken = bytearray(message[: data.draw(st.integers(0, len(message)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    assert_read_alike(bytes(broken))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_as_the_generated_class_reads_them(data: bytes) -> None:
    assert_read_alike(data)
    assert_read_alike(b"\x0a" + varint(len(data)) + data)


def assert_read_alike(data: bytes) -> None:
    try:
        message = expert_pb2.DispatchRequest.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidRequest):
            decode_request(data)
    else:
        assert_read_as(message, data)
    try:
        response = expert_pb2.DispatchResponse.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidRequest):
            decode_response(data)
        return
    received = decode_response(data)
    assert received.granted_pairs == response.granted_pairs
    assert (received.reply is not None) == response.HasField("reply")
    if received.reply is not None and received.reply.error is None:
        reply, timings = received.reply, response.reply.timings
        assert bytes(reply.rows_bytes) == response.reply.rows
        assert (reply.frame_id, reply.batch_frames) == (
            response.reply.frame_id,
            response.reply.batch_frames,
        )
        assert reply.has_checksum == response.reply.HasField("checksum")
        assert reply.timings._asdict() == {name: getattr(timings, name) for name in Timings._fields}


def assert_read_as(message: expert_pb2.DispatchRequest, data: bytes) -> None:
    frame, action = message.frame, message.WhichOneof("action")
    is_known = frame.dtype in ELEMENT_TYPES.values()
    if action == "cancel":
        assert decode_request(data) == Cancel(tuple(message.cancel.requests))
    elif action is None:
        with pytest.raises(InvalidRequest, match="action"):
            decode_request(data)
    elif is_known and not any(
        len(pairs) % 4 for pairs in (frame.pair_rows, frame.pair_experts, frame.pair_weights)
    ):
        assert_same_frame(decode_request(data), frame)
    else:
        with pytest.raises(BadFrame) as refused:
            decode_request(data)
        assert (refused.value.frame_id, refused.value.num_pairs) == (
            frame.frame_id,
            len(frame.pair_experts) // 4,
        )


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"dtype": 0}, "dtype"),
        ({"dtype": 9}, "dtype"),
        ({"pair_rows": b"abc"}, "pair_rows"),
        ({"pair_experts": b"abcde"}, "pair_experts"),
        ({"pair_weights": b"abcdef"}, "pair_weights"),
    ],
)
def test_a_frame_that_can_be_answered_is_refused_with_its_id(
    fields: dict[str, Any], named: str
) -> None:
    message = expert_pb2.Frame(
        **{"frame_id": 7, "dtype": common_pb2.ELEMENT_TYPE_FLOAT32, **fields}
    )
    with pytest.raises(BadFrame, match=named) as refused:
        decode_request(expert_pb2.DispatchRequest(frame=message).SerializeToString())
    assert refused.value.frame_id == 7


def test_rows_of_another_length_are_refused_with_the_frame_s_id() -> None:
    message = expert_pb2.Frame(
        frame_id=3, dtype=common_pb2.ELEMENT_TYPE_BFLOAT16, num_rows=2, rows=bytes(12)
    )
    frame = decode_request(expert_pb2.DispatchRequest(frame=message).SerializeToString())
    assert isinstance(frame, ReceivedFrame)
    assert frame.rows(3).shape == (2, 3)
    with pytest.raises(BadFrame, match="rows has 12 bytes, not 16 for 2 of 4") as refused:
        frame.rows(4)
    assert refused.value.frame_id == 3


def test_reply_rows_of_another_length_are_refused() -> None:
    reply = decode_response(encode_reply(frame_id=1, rows=torch.zeros(2, 3))).reply
    assert reply is not None
    with pytest.raises(InvalidRequest, match="rows has 24 bytes, no multiple of a row's 20"):
        reply.rows(torch.float32, 5)


def test_an_empty_request_names_the_missing_action() -> None:
    with pytest.raises(InvalidRequest, match="action is not set"):
        decode_request(b"")


def varint(value: int) -> bytes:
    written = b""
    while value > 0x7F:
        written += bytes([value & 0x7F | 0x80])
        value >>= 7
    return written + bytes([value])


def test_many_received_rows_are_not_copied() -> None:
    if not native.AVAILABLE:
        pytest.skip("the generated class copies them")
    rows = torch.arange(30_000.0).view(-1, 3)
    data = encode_reply(frame_id=1, rows=rows)
    reply = decode_response(data).reply
    assert reply is not None
    assert reply.rows_bytes.obj is data
    assert reply.rows(torch.float32, 3).equal(rows)
