"""What ends a call to another service, however grpc.aio puts it, as one family of errors."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import grpc

from services.wire.errors import Unavailable, from_rpc


class FrameLost(Unavailable):
    """A frame that no answer will be taken for: its stream broke, or its service left it unanswered."""

    def __init__(self, message: str, reason: Literal["broken", "deadline"]) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def as_serving_errors(address: str) -> Iterator[None]:
    """Raise a ServingError for whatever ends a call to `address` inside the block, a timeout included.

    Besides its own error, grpc.aio raises CancelledError in a task that nobody cancelled when the peer, or a channel
    that is closed, cancels the call, and InvalidStateError on a write to a call that has just ended. Let through, the
    first would end its task without a word and the second the process.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error
    except asyncio.InvalidStateError as error:
        raise Unavailable(f"expert service {address} ended the call") from error
    except TimeoutError as error:
        raise Unavailable(f"expert service {address} did not answer in time") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable(f"expert service {address} cancelled the call") from error
