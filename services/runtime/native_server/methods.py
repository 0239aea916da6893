"""The methods that servicers register, by their paths, each behind the boundary of every server."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

from services.runtime.access import Access, admission
from services.runtime.boundary import guarded


@dataclass(frozen=True)
class Method:
    """How a call is served: the behaviour takes a request, or an iterator of them, as bytes, and
    the call's context.
    """

    behaviour: Callable[..., Awaitable[Any]]
    serialise: Callable[[Any], bytes]
    takes_stream: bool
    answers_stream: bool


class _Asked(NamedTuple):
    """As grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


class Methods:
    """What a server serves, to whom `access` lets in."""

    def __init__(self, access: Access | None = None) -> None:
        self._access = access
        self._by_path: dict[str, Method] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_service(self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """As a generated `add_…Servicer_to_server` has them."""
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self._by_path[path] = self._method_of(path, handler)

    def add_generic(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Asked for paths that no service was added for."""
        self._generic += handlers

    def find(self, path: str) -> Method | None:
        """The method of this path, if it is served."""
        if (method := self._by_path.get(path)) is not None:
            return method
        for handler in self._generic:
            if (found := handler.service(_Asked(path))) is not None:
                return self._method_of(path, found)
        return None

    def _method_of(self, path: str, handler: grpc.RpcMethodHandler) -> Method:
        if handler.request_streaming and not handler.response_streaming:
            raise NotImplementedError(
                "methods that take a stream and give one answer are not served"
            )
        behind = guarded(handler, admission(self._access, path))
        return Method(
            behaviour=behind.unary_unary or behind.unary_stream or behind.stream_stream,
            serialise=handler.response_serializer or bytes,
            takes_stream=handler.request_streaming,
            answers_stream=handler.response_streaming,
        )
