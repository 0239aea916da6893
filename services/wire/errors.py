"""The failures one service may report to another, and the gRPC status each one travels as."""

import grpc

from services.wire.quoting import one_line, peers_words


class ServingError(Exception):
    """A failure the caller is meant to see; its message is shown to the caller as one line, a long
    one cut.

    `retry_after_seconds`, where set, tells the caller when trying again is worth it.
    """

    status = grpc.StatusCode.INTERNAL

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(one_line(message))
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(ServingError):
    """The caller sent something that can never be served."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class TooLong(InvalidRequest):
    """Prompt and continuation do not fit in the context."""


class NotFound(ServingError):
    """The caller named something that does not exist here."""

    status = grpc.StatusCode.NOT_FOUND


class Overloaded(ServingError):
    """A queue, a rate or a memory is full."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class BadState(ServingError):
    """What the call needs does not hold: another checkpoint, a service that is not there, an
    unusable model.
    """

    status = grpc.StatusCode.FAILED_PRECONDITION


class Outdated(ServingError):
    """The caller planned with a hosting generation that is no longer the current one, or has made
    the call anew.
    """

    status = grpc.StatusCode.ABORTED


class Unauthenticated(ServingError):
    """The caller does not show who it is, or by what nobody knows."""

    status = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(ServingError):
    """The caller is known, and this is not for it."""

    status = grpc.StatusCode.PERMISSION_DENIED


class Unavailable(ServingError):
    """A peer is lost or not ready; the only failure worth retrying as it is."""

    status = grpc.StatusCode.UNAVAILABLE


class DeadlinePassed(ServingError):
    """The request's time is up."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


BY_STATUS = {error.status: error for error in ServingError.__subclasses__()}


def from_status(status: grpc.StatusCode, message: str) -> ServingError:
    """Turn a status and its message back into the error the other service raised, whose words are
    cut.
    """
    return BY_STATUS.get(status, ServingError)(peers_words(message))


def from_code(code: int, message: str) -> ServingError:
    """Turn a status code as it travels inside a message back into the error the other service
    raised.
    """
    by_number = {status.value[0]: status for status in grpc.StatusCode}
    return from_status(by_number.get(code, grpc.StatusCode.INTERNAL), message)


def from_rpc(error: grpc.aio.AioRpcError) -> ServingError:
    """Turn a failed call back into the error the other service raised."""
    return from_status(error.code(), error.details() or "the call failed without a message")
