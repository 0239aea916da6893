"""The refusal of one frame on a stream that goes on."""

import grpc

from services.wire.errors import InvalidRequest


class BadFrame(InvalidRequest):
    """A frame that breaks the contract in a message that is whole: it is answered, and the stream
    goes on.

    `num_pairs` is what it counts against the sender's credit. Its status is DATA_LOSS for a wrong
    checksum.
    """

    def __init__(
        self,
        frame_id: int,
        message: str,
        num_pairs: int = 0,
        *,
        status: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT,
        has_checksum: bool = False,
    ) -> None:
        super().__init__(message)
        self.frame_id = frame_id
        self.num_pairs = num_pairs
        self.status = status
        self.has_checksum = has_checksum
