"""The native codec against the generated classes: which messages it takes, and what it refuses."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from moesaic.v1 import expert_pb2
from services.wire import native

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the codec was not built")

UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
WORDS = st.binary(max_size=5).map(lambda drawn: 4 * drawn)
FRAMES = st.builds(
    expert_pb2.Frame,
    frame_id=UINT64,
    layer=UINT32,
    dtype=st.integers(0, 3),
    num_rows=UINT32,
    pair_rows=WORDS,
    pair_experts=WORDS,
    remaining_nanos=UINT64,
    traceparent=st.text(max_size=9),
    requests=st.lists(UINT64, max_size=5),
    pair_weights=WORDS,
    rows=st.binary(max_size=9),
)
REPLIES = st.builds(
    expert_pb2.FrameReply,
    frame_id=UINT64,
    timings=st.none()
    | st.builds(expert_pb2.ServerTimings, decode_nanos=UINT64, encode_nanos=UINT64),
    batch_frames=UINT32,
    rows=st.binary(max_size=9),
)
# A reply with these is left to the generated class.
RARE = {"failures", "error"}
FRAME, REPLY = list(expert_pb2.Frame.DESCRIPTOR.fields), expert_pb2.FrameReply.DESCRIPTOR.fields
TIMINGS = list(expert_pb2.ServerTimings.DESCRIPTOR.fields)
ROWS = torch.arange(12.0).view(3, 4)
NO_PAIRS = np.empty(0, np.uint32)


def request_of(frame: expert_pb2.Frame) -> bytes:
    return expert_pb2.DispatchRequest(frame=frame).SerializeToString()


def response_of(reply: expert_pb2.FrameReply, granted_pairs: int = 0) -> bytes:
    return expert_pb2.DispatchResponse(reply=reply, granted_pairs=granted_pairs).SerializeToString()


def fields_of_frame(frame: expert_pb2.Frame) -> tuple[object, ...]:
    """What is to be read of a frame, in the order in which the kernels tell it."""
    numbers = (frame.frame_id, frame.layer, frame.dtype, frame.num_rows)
    arrays = (frame.rows, frame.pair_rows, frame.pair_experts, frame.pair_weights)
    rest = (
        frame.remaining_nanos,
        frame.traceparent,
        tuple(frame.requests),
        frame.HasField("checksum"),
    )
    return (*numbers, *arrays, *rest)


def fields_of_response(response: expert_pb2.DispatchResponse) -> tuple[object, ...]:
    reply = response.reply
    timings = tuple(getattr(reply.timings, field.name) for field in TIMINGS)
    fields = (reply.frame_id, reply.rows, timings, reply.batch_frames, reply.HasField("checksum"))
    return response.granted_pairs, fields if response.HasField("reply") else None


def assert_frame_read(data: bytes) -> None:
    assert native.decode_request(data) == fields_of_frame(
        expert_pb2.DispatchRequest.FromString(data).frame
    )


def assert_response_read(data: bytes) -> None:
    assert native.decode_response(data) == fields_of_response(
        expert_pb2.DispatchResponse.FromString(data)
    )


def set_to_something(
    message: expert_pb2.Frame | expert_pb2.FrameReply, field: FieldDescriptor
) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(5)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, field.name).SetInParent()
    else:
        others = {FieldDescriptor.TYPE_BYTES: b"four", FieldDescriptor.TYPE_STRING: "text"}
        setattr(message, field.name, others.get(field.type, 2))


@pytest.mark.parametrize("field", FRAME, ids=lambda field: field.name)
def test_each_field_that_the_proto_gives_a_frame_is_known(field: FieldDescriptor) -> None:
    frame = expert_pb2.Frame()
    set_to_something(frame, field)
    if field.name == "checksum":
        frame.checksum = zlib.crc32(bytes(20))
    assert_frame_read(request_of(frame))


@pytest.mark.parametrize(
    "field", [field for field in REPLY if field.name not in RARE], ids=lambda field: field.name
)
def test_each_field_that_the_proto_gives_a_reply_is_known(field: FieldDescriptor) -> None:
    reply = expert_pb2.FrameReply()
    set_to_something(reply, field)
    if field.name == "checksum":
        reply.checksum = zlib.crc32(bytes(8))
    assert_response_read(response_of(reply))


@pytest.mark.parametrize("field", TIMINGS, ids=lambda field: field.name)
def test_each_timing_is_known(field: FieldDescriptor) -> None:
    assert_response_read(
        response_of(expert_pb2.FrameReply(timings=expert_pb2.ServerTimings(**{field.name: 7})))
    )


def test_the_proto_has_no_other_field_around_a_frame_or_a_reply() -> None:
    assert [field.name for field in expert_pb2.DispatchRequest.DESCRIPTOR.fields] == [
        "frame",
        "cancel",
    ]
    assert [field.name for field in expert_pb2.DispatchResponse.DESCRIPTOR.fields] == [
        "reply",
        "granted_pairs",
    ]


@given(FRAMES)
def test_a_frame_as_the_generated_class_writes_it_is_usual(frame: expert_pb2.Frame) -> None:
    assert_frame_read(request_of(frame))


@given(st.none() | REPLIES, UINT64)
def test_a_response_as_the_generated_class_writes_it_is_usual(
    reply: expert_pb2.FrameReply | None, granted_pairs: int
) -> None:
    data = expert_pb2.DispatchResponse(reply=reply, granted_pairs=granted_pairs).SerializeToString()
    assert_response_read(data)
    # A grant may stand first.
    whole = expert_pb2.DispatchResponse.FromString(data)
    grant = expert_pb2.DispatchResponse(granted_pairs=whole.granted_pairs).SerializeToString()
    whole.ClearField("granted_pairs")
    assert native.decode_response(grant + whole.SerializeToString()) == native.decode_response(data)


def test_received_rows_lie_in_the_message() -> None:
    request, response = (
        request_of(expert_pb2.Frame(rows=b"rows")),
        response_of(expert_pb2.FrameReply(rows=b"rows")),
    )
    frame, answer = native.decode_request(request), native.decode_response(response)
    assert frame is not None
    assert answer is not None
    assert answer[1] is not None
    assert frame[4].obj is request
    assert answer[1][1].obj is response


def wrapped(body: bytes) -> bytes:
    assert len(body) < 0x80
    return b"\x0a" + bytes([len(body)]) + body


@pytest.mark.parametrize(
    "body",
    [
        b"\x08\x01\x08\x01",
        b"\x7a\x01a\x7a\x01b",
        b"\xa8\x06\x05",
        b"\x0b\x0c",
        b"\x09" + bytes(8),
        b"\x88\x00\x01",
        b"\x08",
        b"\x08" + b"\xff" * 9 + b"\x02",
        b"\x08" + b"\x80" * 10 + b"\x01",
        b"\x7a\x05rows",
        b"\x7a" + b"\xff" * 9 + b"\x01",
        b"\x00\x01",
    ],
    ids=[
        "a number twice",
        "rows twice",
        "an unknown field",
        "a group",
        "another wire type",
        "a long tag",
        "a number cut off",
        "more than 64 bits",
        "eleven bytes",
        "rows cut off",
        "a length beyond all",
        "no field's number",
    ],
)
def test_what_is_unusual_is_left_to_the_generated_class(body: bytes) -> None:
    assert native.decode_request(wrapped(body)) is None
    assert native.decode_response(wrapped(body)) is None


@pytest.mark.parametrize(
    "body",
    [
        b"\x10" + b"\xff" * 4 + b"\x1f",
        b"\x18" + b"\xff" * 9 + b"\x01",
        b"\x18" + b"\xff" * 4 + b"\x0f",
        b"\x2a\x03abc",
        b"\x42\x01\xff",
        b"\x48\x05",
        b"\x4a\x01\x80",
        b"\x4a\x0b" + b"\x80" * 10 + b"\x01",
        b"\x5d\x01\x02\x03",
        b"\x5d" + bytes(4),
    ],
    ids=[
        "a layer of 33 bits",
        "a negative dtype",
        "a dtype of 32 bits",
        "indices that are not whole",
        "text that is none",
        "requests one by one",
        "a request cut off",
        "a request of eleven bytes",
        "a checksum cut off",
        "a wrong checksum",
    ],
)
def test_what_is_unusual_in_a_frame_is_left_to_the_generated_class(body: bytes) -> None:
    assert native.decode_request(wrapped(body)) is None


@pytest.mark.parametrize(
    "data",
    [
        wrapped(b"\x12\x00"),
        wrapped(b"\x1a\x00"),
        wrapped(b"\x22\x02\x28\x01"),
        wrapped(b"\x22\x04\x08\x01\x08\x01"),
        wrapped(b"\x22\x01\x08"),
        wrapped(b"\x35" + bytes(4)),
        wrapped(b"") + wrapped(b""),
        wrapped(b"") + b"\x10",
        b"\x12\x00",
    ],
    ids=[
        "failures",
        "an error",
        "an unknown timing",
        "a timing twice",
        "a timing cut off",
        "a wrong checksum",
        "two replies",
        "a grant cut off",
        "a grant of another type",
    ],
)
def test_what_is_unusual_in_a_response_is_left_to_the_generated_class(data: bytes) -> None:
    assert native.decode_response(data) is None


@pytest.mark.parametrize("data", [b"", wrapped(b"") + wrapped(b""), b"\x12\x00", wrapped(b"")[:1]])
def test_a_request_that_is_not_one_frame_is_left_to_the_generated_class(data: bytes) -> None:
    assert native.decode_request(data) is None


@given(FRAMES, REPLIES, st.data())
def test_altered_bytes_are_read_as_the_generated_class_reads_them_or_not_at_all(
    frame: expert_pb2.Frame, reply: expert_pb2.FrameReply, draw: st.DataObject
) -> None:
    for message in (request_of(frame), response_of(reply, 300)):
        altered = bytearray(message)
        for _ in range(draw.draw(st.integers(0, 3))):
            altered[draw.draw(st.integers(0, len(altered) - 1))] = draw.draw(st.integers(0, 255))
        assert_alike_or_unread(bytes(altered[: draw.draw(st.integers(0, len(altered)))]))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_generated_class_reads_them_or_not_at_all(data: bytes) -> None:
    assert_alike_or_unread(data)
    assert_alike_or_unread(wrapped(data))


def assert_alike_or_unread(data: bytes) -> None:
    if native.decode_request(data) is not None:
        assert_frame_read(data)
    if native.decode_response(data) is not None:
        assert_response_read(data)


# Whole words, blocks of four, blocks of sixteen, and what is left of each are summed in ways of
# their own.
@given(st.integers(0, 900) | st.integers(0, 1 << 17), UINT64, UINT32)
def test_a_checksum_is_zlib_s_whatever_the_length_and_wherever_it_begins(
    num_bytes: int, frame_id: int, seed: int
) -> None:
    data = np.random.default_rng(seed).bytes(num_bytes)
    rows = torch.frombuffer(bytearray(data), dtype=torch.uint8)[None] if data else None
    message = native.encode_reply(rows, frame_id, 1, None, 0, True)
    assert expert_pb2.DispatchResponse.FromString(message).reply.checksum == zlib.crc32(
        data, zlib.crc32(frame_id.to_bytes(8, "little"))
    )
    assert_response_read(message)
    # The last byte of the message is the rows' or the checksum's.
    assert native.decode_response(message[:-1] + bytes([message[-1] ^ 1])) is None


def frame_with(**otherwise: Any) -> bytes:
    fields: dict[str, object] = {
        "rows": ROWS,
        "row_indices": None,
        "pair_rows": NO_PAIRS,
        "pair_experts": NO_PAIRS,
        "pair_weights": None,
        "requests": (),
        "traceparent": "",
        "frame_id": 0,
        "layer": 0,
        "element_type": 1,
        "remaining_nanos": 0,
        "checksum": True,
    }
    return native.encode_frame(**(fields | otherwise))  # type: ignore[arg-type]


def reply_with(**otherwise: Any) -> bytes:
    fields: dict[str, object] = {
        "rows": None,
        "frame_id": 0,
        "batch_frames": 0,
        "timings": None,
        "granted_pairs": 0,
        "checksum": False,
    }
    return native.encode_reply(**(fields | otherwise))  # type: ignore[arg-type]


def any_address(numbers: np.ndarray) -> np.ndarray:
    """The same numbers at an address that is no multiple of theirs."""
    return np.frombuffer(b"\0" + numbers.tobytes(), numbers.dtype, offset=1)


def test_numbers_may_be_of_numpy_and_arrays_lie_at_any_address() -> None:
    pairs, requests, weights = (
        np.array([1, 2], np.uint32),
        np.array([3, 1 << 40]),
        np.array([0.5, 2], np.float32),
    )
    data = frame_with(
        pair_rows=any_address(pairs),
        pair_experts=pairs,
        pair_weights=any_address(weights),
        requests=requests,
        layer=np.int64(7),
    )
    frame = expert_pb2.DispatchRequest.FromString(data).frame
    assert (frame.pair_rows, frame.pair_experts) == (pairs.tobytes(), pairs.tobytes())
    assert (frame.pair_weights, list(frame.requests), frame.layer) == (
        weights.tobytes(),
        requests.tolist(),
        7,
    )


@pytest.mark.parametrize(
    "rows",
    [ROWS[:, :2], ROWS.t(), ROWS[:, ::2], ROWS[1:2].expand(5, 4), ROWS.t()[:, :1], ROWS.flip(1)],
    ids=["gaps", "columns", "steps", "one row again and again", "one wide", "backwards"],
)
@pytest.mark.parametrize("indices", [None, [2, 0, 2]])
def test_rows_are_written_however_they_lie(rows: torch.Tensor, indices: list[int] | None) -> None:
    chosen = rows if indices is None else rows[indices]
    data = frame_with(rows=rows, row_indices=None if indices is None else np.array(indices))
    frame = expert_pb2.DispatchRequest.FromString(data).frame
    assert (frame.num_rows, frame.rows) == (len(chosen), chosen.contiguous().numpy().tobytes())
    reply = expert_pb2.DispatchResponse.FromString(reply_with(rows=chosen)).reply
    assert reply.rows == frame.rows


@pytest.mark.parametrize(
    ("write", "fields", "error"),
    [
        (frame_with, {"rows": torch.ones(2, 4, device="meta")}, ValueError),
        (frame_with, {"row_indices": np.array([3])}, IndexError),
        (frame_with, {"row_indices": np.array([-1])}, IndexError),
        (frame_with, {"row_indices": np.array([0], np.int32)}, ValueError),
        (frame_with, {"rows": torch.zeros(1, 4).expand(1 << 60, 4)}, MemoryError),
        (frame_with, {"rows": torch.zeros(0, 4), "row_indices": np.array([0])}, IndexError),
        (frame_with, {"rows": torch.zeros(1 << 32, 0)}, OverflowError),
        (frame_with, {"pair_rows": np.array([1])}, ValueError),
        (frame_with, {"pair_rows": np.array([1.0], np.float32)}, ValueError),
        (frame_with, {"pair_experts": np.zeros((2, 2), np.uint32)}, ValueError),
        (frame_with, {"pair_experts": np.zeros(4, np.uint32)[::2]}, ValueError),
        (frame_with, {"pair_experts": np.zeros(4, ">u4")}, ValueError),
        (frame_with, {"pair_weights": np.zeros(4, np.uint32)}, ValueError),
        (frame_with, {"pair_rows": [1]}, TypeError),
        (frame_with, {"requests": [-1]}, OverflowError),
        (frame_with, {"requests": 3}, TypeError),
        (frame_with, {"requests": ["3"]}, TypeError),
        (frame_with, {"traceparent": "\ud800"}, UnicodeEncodeError),
        (frame_with, {"traceparent": b""}, TypeError),
        (frame_with, {"frame_id": 1 << 64}, OverflowError),
        (frame_with, {"layer": 1 << 32}, OverflowError),
        (frame_with, {"element_type": 1 << 31}, OverflowError),
        (frame_with, {"remaining_nanos": -1}, OverflowError),
        (reply_with, {"rows": torch.ones(2, 4, device="meta")}, ValueError),
        (reply_with, {"rows": torch.zeros(1, 4).expand(1 << 60, 4)}, MemoryError),
        (reply_with, {"frame_id": -1}, OverflowError),
        (reply_with, {"batch_frames": 1 << 32}, OverflowError),
        (reply_with, {"timings": (1, 2, 3)}, IndexError),
        (reply_with, {"timings": (1, 2, 3, -4)}, OverflowError),
        (reply_with, {"granted_pairs": 0.5}, TypeError),
    ],
)
def test_what_a_message_does_not_hold_is_refused(
    write: Callable[..., bytes], fields: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        write(**fields)


@pytest.mark.parametrize("read", [native.decode_request, native.decode_response])
def test_only_bytes_are_read(read: Callable[[object], object]) -> None:
    with pytest.raises(TypeError):
        read(bytearray(b"\x10\x01"))


def test_a_response_that_grants_nothing_and_has_no_reply_is_one() -> None:
    assert native.decode_response(b"") == (0, None)
    assert expert_pb2.DispatchResponse.FromString(b"") == expert_pb2.DispatchResponse()
