"""The tensor codec: ordinary protobuf bytes whose rows are copied once when written and, where they are many, not read.

The generated classes write and read the small fields; `rows`, the last field of its message, is put behind
them and found again by hand. Small messages, and whatever is laid out in another way (a field given twice, groups),
are read by the generated classes alone, so that every valid message is understood and every broken one refused. The
technique is that of TensorFlow's RecvTensor.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import numpy as np
import numpy.typing as npt
import torch

from moesaic.v1 import common_pb2, expert_pb2
from services.wire import checksum as checksums
from services.wire.bad_frame import BadFrame
from services.wire.errors import InvalidRequest
from services.wire.outcomes import FrameError, PairFailure, Timings
from services.wire.parsing import frame_or_reply, parse, parse_rows_apart
from services.wire.row_bytes import rows_of, wrapped

Indices: TypeAlias = npt.NDArray[np.uint32]
Weights: TypeAlias = npt.NDArray[np.float32]

ELEMENT_TYPES: dict[torch.dtype, "common_pb2.ElementType.ValueType"] = {
    torch.float32: common_pb2.ELEMENT_TYPE_FLOAT32,
    torch.bfloat16: common_pb2.ELEMENT_TYPE_BFLOAT16,
    torch.float16: common_pb2.ELEMENT_TYPE_FLOAT16,
}
DTYPES = {element_type: dtype for dtype, element_type in ELEMENT_TYPES.items()}

_INDEX = np.dtype("<u4")
_WEIGHT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A frame as it arrived; `rows_bytes` still lies in the received message.

    Where there are `pair_weights`, each row's weighted sum is asked for, else each pair's output.
    """

    frame_id: int
    layer: int
    dtype: torch.dtype
    num_rows: int
    rows_bytes: memoryview
    pair_rows: Indices
    pair_experts: Indices
    pair_weights: Weights
    remaining_nanos: int
    traceparent: str
    requests: tuple[int, ...]
    has_checksum: bool = False  # then the answer has one too

    def rows(self, hidden_size: int) -> torch.Tensor:
        """View the rows, [num_rows, hidden_size]; never write to it.

        Raises BadFrame when the bytes are fewer or more.
        """
        expected = self.num_rows * hidden_size * self.dtype.itemsize
        if len(self.rows_bytes) != expected:
            raise BadFrame(
                self.frame_id,
                f"rows has {len(self.rows_bytes)} bytes, not {expected} for {self.num_rows} of {hidden_size}",
                len(self.pair_experts),
                has_checksum=self.has_checksum,
            )
        return rows_of(self.rows_bytes, self.dtype, hidden_size)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Requests that nobody waits for any more."""

    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReceivedReply:
    """What became of a frame; `rows_bytes` still lies in the received message."""

    frame_id: int
    rows_bytes: memoryview
    failures: tuple[PairFailure, ...]
    error: FrameError | None
    timings: Timings
    batch_frames: int
    has_checksum: bool = False

    def num_rows(self, dtype: torch.dtype, hidden_size: int) -> int:
        """How many rows came. Raises InvalidRequest when the bytes are no whole number of rows."""
        row_bytes = hidden_size * dtype.itemsize
        num_rows, rest = divmod(len(self.rows_bytes), row_bytes)
        if rest:
            raise InvalidRequest(f"rows has {len(self.rows_bytes)} bytes, no multiple of a row's {row_bytes}")
        return num_rows

    def rows(self, dtype: torch.dtype, hidden_size: int) -> torch.Tensor:
        """View the rows, [computed pairs or the frame's rows, hidden_size]; never write to it.

        Raises InvalidRequest when the bytes are no whole number of rows.
        """
        self.num_rows(dtype, hidden_size)
        return rows_of(self.rows_bytes, dtype, hidden_size)


@dataclass(frozen=True, slots=True)
class Response:
    """What the service said: a reply or none, and the credit so far (0 for no change)."""

    reply: ReceivedReply | None
    granted_pairs: int


def encode_frame(
    *,
    frame_id: int,
    layer: int,
    rows: torch.Tensor,
    pair_rows: Indices,
    pair_experts: Indices,
    remaining_nanos: int,
    traceparent: str,
    requests: Iterable[int],
    pair_weights: Weights | None = None,
    row_indices: npt.NDArray[np.int64] | None = None,
    checksum: bool = False,
) -> bytes:
    """Write a DispatchRequest with one frame; `rows` is [num_rows, hidden_size] in the host's memory.

    Of `rows` those with `row_indices` are sent, where given. `pair_weights`, where given, ask for each row's weighted
    sum. With a `checksum` the reply has one too.
    """
    head = expert_pb2.Frame(
        frame_id=frame_id,
        layer=layer,
        dtype=ELEMENT_TYPES[rows.dtype],
        num_rows=rows.shape[0] if row_indices is None else len(row_indices),
        pair_rows=pair_rows.astype(_INDEX, copy=False).tobytes(),
        pair_experts=pair_experts.astype(_INDEX, copy=False).tobytes(),
        remaining_nanos=remaining_nanos,
        traceparent=traceparent,
        requests=requests,
        pair_weights=b"" if pair_weights is None else pair_weights.astype(_WEIGHT, copy=False).tobytes(),
    )
    field = checksums.field_of_frame(head) if checksum else None
    return wrapped(head.SerializeToString(), rows, row_indices, checksum=field)


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
    head = expert_pb2.FrameReply(frame_id=frame_id, batch_frames=batch_frames)
    for failure in failures:
        head.failures.add(reason=failure.reason, pairs=failure.pairs)
    if error is not None:
        head.error.status_code = error.status_code
        head.error.message = error.message
    if timings is not None:
        head.timings.decode_nanos = timings.decode_nanos
        head.timings.queue_nanos = timings.queue_nanos
        head.timings.compute_nanos = timings.compute_nanos
        head.timings.encode_nanos = timings.encode_nanos
    grant = encode_grant(granted_pairs) if granted_pairs else b""
    field = checksums.field_of_reply(head) if checksum else None
    return wrapped(head.SerializeToString(), rows, after=grant, checksum=field)


def decode_request(data: bytes) -> ReceivedFrame | Cancel:
    """Read a DispatchRequest.

    Raises BadFrame for a frame that can be answered, else InvalidRequest; both name the field.
    """
    usual = frame_or_reply(data)
    if usual is not None and not usual.rest:
        message = expert_pb2.Frame()
        return _frame(message, parse_rows_apart(message, data, usual))
    request = expert_pb2.DispatchRequest()
    parse(request, data)
    match request.WhichOneof("action"):
        case "frame":
            return _frame(request.frame, memoryview(request.frame.rows))
        case "cancel":
            return Cancel(tuple(request.cancel.requests))
        case _:
            raise InvalidRequest("action is not set: a DispatchRequest is a frame or a cancel")


def decode_response(data: bytes) -> Response:
    """Read a DispatchResponse; a reply whose checksum is wrong is one with an error of DATA_LOSS.

    Raises InvalidRequest, naming what is wrong with the message.
    """
    usual = frame_or_reply(data)
    response = expert_pb2.DispatchResponse()
    if usual is None:
        parse(response, data)
        reply = response.reply if response.HasField("reply") else None
        return Response(None if reply is None else _reply(reply, memoryview(reply.rows)), response.granted_pairs)
    parse(response, usual.rest)
    message = expert_pb2.FrameReply()
    rows = parse_rows_apart(message, data, usual)
    return Response(_reply(message, rows), response.granted_pairs)


def _frame(message: expert_pb2.Frame, rows: memoryview) -> ReceivedFrame:
    has_checksum = message.HasField("checksum")
    if has_checksum and (refusal := checksums.refusal(message.checksum, checksums.of_frame(message, rows))):
        raise _bad(message, refusal, grpc.StatusCode.DATA_LOSS)
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        known = "float32 (1), bfloat16 (2) or float16 (3)"
        raise _bad(message, f"dtype is {message.dtype}; it must be {known}")
    return ReceivedFrame(
        frame_id=message.frame_id,
        layer=message.layer,
        dtype=dtype,
        num_rows=message.num_rows,
        rows_bytes=rows,
        pair_rows=np.frombuffer(_whole(message, "pair_rows", message.pair_rows), _INDEX),
        pair_experts=np.frombuffer(_whole(message, "pair_experts", message.pair_experts), _INDEX),
        pair_weights=np.frombuffer(_whole(message, "pair_weights", message.pair_weights), _WEIGHT),
        remaining_nanos=message.remaining_nanos,
        traceparent=message.traceparent,
        requests=tuple(message.requests),
        has_checksum=has_checksum,
    )


def _whole(message: expert_pb2.Frame, field: str, data: bytes) -> bytes:
    if len(data) % 4:
        raise _bad(message, f"{field} has {len(data)} bytes, which is no multiple of 4")
    return data


def _bad(
    message: expert_pb2.Frame, reason: str, status: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT
) -> BadFrame:
    num_pairs, has_checksum = len(message.pair_experts) // 4, message.HasField("checksum")
    return BadFrame(message.frame_id, reason, num_pairs, status=status, has_checksum=has_checksum)


def _reply(message: expert_pb2.FrameReply, rows: memoryview) -> ReceivedReply:
    has_checksum = message.HasField("checksum")
    if has_checksum and (refusal := checksums.refusal(message.checksum, checksums.of_reply(message, rows))):
        error = FrameError(grpc.StatusCode.DATA_LOSS.value[0], refusal)
        return ReceivedReply(message.frame_id, memoryview(b""), (), error, Timings(), 0, has_checksum=True)
    timings, failures = message.timings, message.failures
    return ReceivedReply(
        frame_id=message.frame_id,
        rows_bytes=rows,
        failures=tuple([PairFailure(failure.reason, tuple(failure.pairs)) for failure in failures]) if failures else (),
        error=FrameError(message.error.status_code, message.error.message) if message.HasField("error") else None,
        timings=Timings(timings.decode_nanos, timings.queue_nanos, timings.compute_nanos, timings.encode_nanos),
        batch_frames=message.batch_frames,
        has_checksum=has_checksum,
    )
