"""The tensor codec: ordinary protobuf bytes, whose rows are copied once when written and not when
read.

Where there are kernels they write and read what is laid out in the usual way. The generated classes
do the rest: replies with failures, messages laid out in another way or broken, which they refuse,
and all of them without native.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import torch

from moesaic.v1 import common_pb2, expert_pb2
from services.wire import checksum as checksums
from services.wire import native
from services.wire.bad_frame import BadFrame
from services.wire.errors import InvalidRequest
from services.wire.outcomes import FrameError, PairFailure, Timings
from services.wire.parsing import fields_of, parse
from services.wire.received import Cancel, ReceivedFrame, ReceivedReply, Response, Weights, Words
from services.wire.row_bytes import bytes_of

ELEMENT_TYPES: dict[torch.dtype, "common_pb2.ElementType.ValueType"] = {
    torch.float32: common_pb2.ELEMENT_TYPE_FLOAT32,
    torch.bfloat16: common_pb2.ELEMENT_TYPE_BFLOAT16,
    torch.float16: common_pb2.ELEMENT_TYPE_FLOAT16,
}
DTYPES: dict[int, torch.dtype] = {
    element_type: dtype for dtype, element_type in ELEMENT_TYPES.items()
}

_INDEX = np.dtype("<u4")
_WEIGHT = np.dtype("<f4")
_NO_WEIGHTS = np.empty(0, _WEIGHT)


def encode_frame(
    *,
    frame_id: int,
    layer: int,
    rows: torch.Tensor,
    pair_rows: Words,
    pair_experts: Words,
    remaining_nanos: int,
    traceparent: str,
    requests: Iterable[int],
    pair_weights: Weights | None = None,
    row_indices: npt.NDArray[np.int64] | None = None,
    checksum: bool = False,
) -> bytes:
    """Write a DispatchRequest with one frame; `rows` is [num_rows, hidden_size] in the host's
    memory.

    Of `rows` those with `row_indices` are sent, where given. `pair_weights`, where given, ask for
    each row's weighted sum. With a `checksum` the reply has one too. Raises ValueError or
    OverflowError for what the fields do not hold, IndexError for a row that is not there.
    """
    element_type = ELEMENT_TYPES[rows.dtype]
    if native.AVAILABLE:
        fields: tuple[Any, ...] = (
            *(pair_rows, pair_experts, pair_weights, requests, traceparent),
            *(frame_id, layer, element_type, remaining_nanos, checksum),
        )
        return native.encode_frame(rows, row_indices, *fields)
    message = expert_pb2.Frame(
        frame_id=frame_id,
        layer=layer,
        dtype=element_type,
        num_rows=rows.shape[0] if row_indices is None else len(row_indices),
        pair_rows=_bytes(pair_rows, _INDEX),
        pair_experts=_bytes(pair_experts, _INDEX),
        remaining_nanos=remaining_nanos,
        traceparent=traceparent,
        requests=requests,
        pair_weights=b"" if pair_weights is None else _bytes(pair_weights, _WEIGHT),
        rows=bytes_of(rows, row_indices),
    )
    if checksum:
        message.checksum = checksums.of_frame(message)
    return expert_pb2.DispatchRequest(frame=message).SerializeToString()


def encode_cancel(requests: Iterable[int]) -> bytes:
    """Write a DispatchRequest that cancels requests."""
    cancel = expert_pb2.CancelRequests(requests=requests)
    return expert_pb2.DispatchRequest(cancel=cancel).SerializeToString()


def encode_grant(granted_pairs: int) -> bytes:
    """Write a DispatchResponse that only grants credit."""
    return expert_pb2.DispatchResponse(granted_pairs=granted_pairs).SerializeToString()


def encode_reply(
    *,
    frame_id: int,
    rows: torch.Tensor | None = None,
    failures: Sequence[PairFailure] = (),
    error: FrameError | None = None,
    timings: Timings | None = None,
    batch_frames: int = 0,
    granted_pairs: int = 0,
    checksum: bool = False,
) -> bytes:
    """Write a DispatchResponse with one reply; `rows` is [rows, hidden_size] in host memory."""
    if native.AVAILABLE and not failures and error is None:
        return native.encode_reply(rows, frame_id, batch_frames, timings, granted_pairs, checksum)
    message = expert_pb2.FrameReply(
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
        rows=b"" if rows is None else bytes_of(rows),
    )
    if checksum:
        message.checksum = checksums.of_reply(message)
    return expert_pb2.DispatchResponse(
        reply=message, granted_pairs=granted_pairs
    ).SerializeToString()


def decode_request(data: bytes) -> ReceivedFrame | Cancel:
    """Read a DispatchRequest.

    Raises BadFrame for a frame that can be answered, else InvalidRequest; both name the field.
    """
    fields = native.decode_request(data) if native.AVAILABLE else None
    if fields is not None:
        return _frame(fields)
    request = expert_pb2.DispatchRequest()
    parse(request, data)
    match request.WhichOneof("action"):
        case "frame":
            return _frame(fields_of(request.frame))
        case "cancel":
            return Cancel(tuple(request.cancel.requests))
        case _:
            raise InvalidRequest("action is not set: a DispatchRequest is a frame or a cancel")


def decode_response(data: bytes) -> Response:
    """Read a DispatchResponse; a reply whose checksum is wrong is one with an error of DATA_LOSS.

    Raises InvalidRequest, naming what is wrong with the message.
    """
    if native.AVAILABLE and (fields := native.decode_response(data)) is not None:
        granted_pairs, reply = fields
        if reply is None:
            return Response(None, granted_pairs)
        frame_id, rows, timings, batch_frames, has_checksum = reply
        received = ReceivedReply(
            frame_id, rows, (), None, Timings(*timings), batch_frames, has_checksum
        )
        return Response(received, granted_pairs)
    response = expert_pb2.DispatchResponse()
    parse(response, data)
    return Response(
        _reply(response.reply) if response.HasField("reply") else None, response.granted_pairs
    )


def _frame(fields: native.FrameFields) -> ReceivedFrame:
    (
        frame_id,
        layer,
        dtype,
        num_rows,
        rows,
        pair_rows,
        experts,
        weights,
        nanos,
        traceparent,
        requests,
        checksum,
    ) = fields
    if dtype not in DTYPES:
        message = f"dtype is {dtype}; it must be float32 (1), bfloat16 (2) or float16 (3)"
        raise BadFrame(frame_id, message, len(experts) // _INDEX.itemsize, has_checksum=checksum)
    return ReceivedFrame(
        frame_id,
        layer,
        DTYPES[dtype],
        num_rows,
        rows,
        np.frombuffer(pair_rows, _INDEX),
        np.frombuffer(experts, _INDEX),
        np.frombuffer(weights, _WEIGHT) if weights else _NO_WEIGHTS,
        nanos,
        traceparent,
        requests,
        checksum,
    )


def _reply(message: expert_pb2.FrameReply) -> ReceivedReply:
    has_checksum = message.HasField("checksum")
    if has_checksum and (
        refusal := checksums.refusal(message.checksum, checksums.of_reply(message))
    ):
        error = FrameError(grpc.StatusCode.DATA_LOSS.value[0], refusal)
        return ReceivedReply(
            message.frame_id, memoryview(b""), (), error, Timings(), 0, has_checksum=True
        )
    timings = message.timings
    return ReceivedReply(
        frame_id=message.frame_id,
        rows_bytes=memoryview(message.rows),
        failures=tuple(
            [PairFailure(failure.reason, tuple(failure.pairs)) for failure in message.failures]
        ),
        error=FrameError(message.error.status_code, message.error.message)
        if message.HasField("error")
        else None,
        timings=Timings(
            timings.decode_nanos, timings.queue_nanos, timings.compute_nanos, timings.encode_nanos
        ),
        batch_frames=message.batch_frames,
        has_checksum=has_checksum,
    )


def _bytes(numbers: Words | Weights, dtype: "np.dtype[Any]") -> bytes:
    return numbers.astype(dtype, copy=False).tobytes()
