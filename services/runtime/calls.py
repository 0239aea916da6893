"""What ends a call to another service, however grpc.aio puts it, as one family of errors."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import google.protobuf.message
import grpc

from services.wire.errors import Unavailable, from_rpc

Message = TypeVar("Message")
Parsed = TypeVar("Parsed", bound=google.protobuf.message.Message)


@contextmanager
def as_serving_errors(peer: str) -> Iterator[None]:
    """Raise a ServingError for whatever ends a call to `peer` inside the block, a timeout included.

    Besides its own error, grpc.aio raises CancelledError in a task that nobody cancelled when the
    peer, or a channel that is closed, cancels the call, and InvalidStateError on a write to a call
    that has just ended. Let through, the first would end its task without a word and the second the
    process.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error
    except asyncio.InvalidStateError as error:
        raise Unavailable(f"{peer} ended the call") from error
    except TimeoutError as error:
        raise Unavailable(f"{peer} did not answer in time") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable(f"{peer} cancelled the call") from error


def readable(message: Message | None, peer: str) -> Message:
    """The message that `peer` sent. Raises Unavailable for one that is not of its type.

    grpc.aio hands out None then, and says so only in the log.
    """
    if message is None:
        raise Unavailable(f"{peer} sent a message that cannot be read")
    return message


def parsed(kind: type[Parsed], message: bytes, peer: str) -> Parsed:
    """The message that `peer` sent as bytes. Raises Unavailable for one that is not of its type."""
    try:
        return kind.FromString(message)
    except (google.protobuf.message.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"{peer} sent a message that cannot be read") from error
