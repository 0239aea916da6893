"""Frames and replies with a checksum: no altered bit of what it covers is taken for
what was sent.
"""

import zlib
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moesaic.v1 import expert_pb2
from services.wire.bad_frame import BadFrame
from services.wire.errors import InvalidRequest
from services.wire.frames import (
    ELEMENT_TYPES,
    decode_request,
    decode_response,
    encode_frame,
    encode_reply,
)
from services.wire.outcomes import FrameError, PairFailure
from services.wire.received import ReceivedFrame, ReceivedReply
from tests.wire import ways

HIDDEN = 5
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
# Each test runs in each of the ways.
FEWER = settings(max_examples=25)
DATA_LOSS = grpc.StatusCode.DATA_LOSS


@pytest.fixture(autouse=True, scope="module", params=ways.WAYS)
def _each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    with ways.used(request.param):
        yield


@st.composite
def tensors(draw: st.DrawFn, least_rows: int = 0) -> torch.Tensor:
    dtype = draw(st.sampled_from(list(ELEMENT_TYPES)))
    shape = (draw(st.integers(least_rows, 9)), HIDDEN)
    return torch.from_numpy(np.random.default_rng(draw(UINT32)).standard_normal(shape)).to(dtype)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Any frame that has a checksum, with rows and pairs."""
    rows = draw(tensors(least_rows=1))
    pairs = draw(st.lists(st.tuples(UINT32, UINT32, st.floats(width=32)), min_size=1, max_size=9))
    row_indices = draw(
        st.none() | st.lists(st.integers(0, len(rows) - 1), min_size=1).map(np.array)
    )
    return encode_frame(
        frame_id=draw(UINT64),
        layer=draw(UINT32),
        rows=rows,
        pair_rows=np.array([row for row, _, _ in pairs], np.uint32),
        pair_experts=np.array([expert for _, expert, _ in pairs], np.uint32),
        pair_weights=np.array([weight for _, _, weight in pairs], np.float32)
        if draw(st.booleans())
        else None,
        remaining_nanos=draw(UINT64),
        traceparent="",
        requests=draw(st.lists(UINT64, max_size=3)),
        row_indices=row_indices,
        checksum=True,
    )


@st.composite
def replies(draw: st.DrawFn, least_failures: int = 0) -> bytes:
    """Any reply that has a checksum, with rows."""
    reasons = st.sampled_from(expert_pb2.PairFailureReason.values()[1:])
    pairs = st.lists(UINT32, min_size=1, max_size=4).map(tuple)
    return encode_reply(
        frame_id=draw(UINT64),
        rows=draw(tensors(least_rows=1)),
        failures=draw(
            st.lists(st.builds(PairFailure, reasons, pairs), min_size=least_failures, max_size=3)
        ),
        granted_pairs=draw(UINT64),
        checksum=True,
    )


def frame_words(message: expert_pb2.Frame) -> bytes:
    """What a frame's checksum is of, as the proto says it."""
    numbers = [message.layer, message.dtype, message.num_rows]
    head = message.frame_id.to_bytes(8, "little") + b"".join(
        number.to_bytes(4, "little") for number in numbers
    )
    return head + message.pair_rows + message.pair_experts + message.pair_weights + message.rows


def reply_words(message: expert_pb2.FrameReply) -> bytes:
    """What a reply's checksum is of, as the proto says it."""
    numbers = [
        number for failure in message.failures for number in (failure.reason, *failure.pairs)
    ]
    head = message.frame_id.to_bytes(8, "little") + b"".join(
        number.to_bytes(4, "little") for number in numbers
    )
    return head + message.rows


@FEWER
@given(frames())
def test_a_frame_s_checksum_is_of_what_the_proto_names_and_where_the_class_writes_it(
    data: bytes,
) -> None:
    request = expert_pb2.DispatchRequest.FromString(data)
    assert request.SerializeToString() == data
    assert request.frame.checksum == zlib.crc32(frame_words(request.frame))
    received = decode_request(data)
    assert isinstance(received, ReceivedFrame)
    assert received.has_checksum
    assert bytes(received.rows_bytes) == request.frame.rows


@FEWER
@given(replies())
def test_a_reply_s_checksum_is_of_what_the_proto_names_and_where_the_class_writes_it(
    data: bytes,
) -> None:
    response = expert_pb2.DispatchResponse.FromString(data)
    assert response.SerializeToString() == data
    assert response.reply.checksum == zlib.crc32(reply_words(response.reply))
    reply = decode_response(data).reply
    assert reply is not None
    assert (reply.has_checksum, reply.error, bytes(reply.rows_bytes)) == (
        True,
        None,
        response.reply.rows,
    )


@pytest.mark.parametrize("field", ["frame_id", "layer", "dtype", "num_rows"])
@FEWER
@given(frames(), st.data())
def test_an_altered_number_of_a_frame_is_noticed(
    field: str, data: bytes, draw: st.DataObject
) -> None:
    request = expert_pb2.DispatchRequest.FromString(data)
    bits = {"frame_id": 64, "dtype": 31}.get(field, 32)
    setattr(
        request.frame,
        field,
        getattr(request.frame, field) ^ 1 << draw.draw(st.integers(0, bits - 1)),
    )
    assert_data_loss(request.SerializeToString())


@pytest.mark.parametrize("field", ["pair_rows", "pair_experts", "pair_weights", "rows"])
@FEWER
@given(frames(), st.data())
def test_an_altered_bit_of_a_frame_s_arrays_is_noticed(
    field: str, data: bytes, draw: st.DataObject
) -> None:
    request = expert_pb2.DispatchRequest.FromString(data)
    if getattr(request.frame, field):
        setattr(request.frame, field, flipped(getattr(request.frame, field), draw))
        assert_data_loss(request.SerializeToString())


@FEWER
@given(frames(), st.data())
def test_an_altered_bit_anywhere_never_changes_what_is_computed(
    data: bytes, draw: st.DataObject
) -> None:
    """It is noticed, or it is in a field that the checksum leaves out, or the checksum itself is
    not there any more.
    """
    sent = decode_request(data)
    assert isinstance(sent, ReceivedFrame)
    try:
        received = decode_request(flipped(data, draw))
    except InvalidRequest:
        return
    if isinstance(received, ReceivedFrame) and received.has_checksum:
        for name in ("frame_id", "layer", "dtype", "num_rows"):
            assert getattr(received, name) == getattr(sent, name)
        for name in ("pair_rows", "pair_experts", "pair_weights", "rows_bytes"):
            assert bytes(getattr(received, name)) == bytes(getattr(sent, name))


@pytest.mark.parametrize("field", ["frame_id", "rows"])
@FEWER
@given(replies(), st.data())
def test_an_altered_reply_is_one_with_an_error(
    field: str, data: bytes, draw: st.DataObject
) -> None:
    response = expert_pb2.DispatchResponse.FromString(data)
    if field == "rows":
        response.reply.rows = flipped(response.reply.rows, draw)
    else:
        response.reply.frame_id ^= 1 << draw.draw(st.integers(0, 63))
    assert_lost(decode_response(response.SerializeToString()).reply)


@pytest.mark.parametrize("field", ["reason", "pairs"])
@FEWER
@given(replies(least_failures=1), st.data())
def test_a_reply_with_an_altered_failure_is_one_with_an_error(
    field: str, data: bytes, draw: st.DataObject
) -> None:
    response = expert_pb2.DispatchResponse.FromString(data)
    failure = draw.draw(st.sampled_from(response.reply.failures))
    if field == "reason":
        failure.reason ^= 1 << draw.draw(st.integers(0, 30))  # type: ignore[assignment]
    else:
        failure.pairs[draw.draw(st.integers(0, len(failure.pairs) - 1))] ^= 1 << draw.draw(
            st.integers(0, 31)
        )
    assert_lost(decode_response(response.SerializeToString()).reply)


@FEWER
@given(replies(), st.data())
def test_a_wrong_checksum_alone_is_noticed_too(data: bytes, draw: st.DataObject) -> None:
    response = expert_pb2.DispatchResponse.FromString(data)
    response.reply.checksum ^= 1 << draw.draw(st.integers(0, 31))
    assert_lost(decode_response(response.SerializeToString()).reply)


def test_a_frame_whose_alteration_breaks_the_contract_too_is_lost_and_not_invalid() -> None:
    message = expert_pb2.Frame(frame_id=7, dtype=99, pair_experts=bytes(8), checksum=1)  # type: ignore[arg-type]
    with pytest.raises(
        BadFrame, match="checksum is 0x00000001, but that of the bytes received is 0x"
    ) as refused:
        decode_request(expert_pb2.DispatchRequest(frame=message).SerializeToString())
    error = refused.value
    assert (error.frame_id, error.num_pairs, error.status, error.has_checksum) == (
        7,
        2,
        DATA_LOSS,
        True,
    )


def test_a_right_checksum_makes_no_bad_frame_good() -> None:
    frame = expert_pb2.Frame(frame_id=7, dtype=99)  # type: ignore[arg-type]
    frame.checksum = zlib.crc32(frame_words(frame))
    with pytest.raises(BadFrame, match="dtype is 99") as refused:
        decode_request(expert_pb2.DispatchRequest(frame=frame).SerializeToString())
    assert (refused.value.status, refused.value.has_checksum) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        True,
    )


@FEWER
@given(frames())
def test_without_a_checksum_a_frame_is_read_as_ever(data: bytes) -> None:
    request = expert_pb2.DispatchRequest.FromString(data)
    request.frame.ClearField("checksum")
    received = decode_request(request.SerializeToString())
    assert isinstance(received, ReceivedFrame)
    assert not received.has_checksum
    assert bytes(received.rows_bytes) == request.frame.rows


def test_a_refusal_has_a_checksum_where_the_frame_had_one() -> None:
    error = FrameError(3, "no such layer")
    reply = decode_response(encode_reply(frame_id=4, error=error, checksum=True)).reply
    assert reply is not None
    assert (reply.error, reply.has_checksum) == (error, True)


def flipped(data: bytes, draw: st.DataObject) -> bytes:
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def assert_data_loss(data: bytes) -> None:
    with pytest.raises(BadFrame, match="checksum") as refused:
        decode_request(data)
    assert refused.value.status is DATA_LOSS


def assert_lost(reply: ReceivedReply | None) -> None:
    assert reply is not None
    assert reply.error is not None
    assert reply.error.status_code == DATA_LOSS.value[0]
    assert (reply.failures, bytes(reply.rows_bytes)) == ((), b"")
