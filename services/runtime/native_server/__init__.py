"""A server of gRPC in the event loop itself, over our own framing: what grpc.aio's server does,
without its threads and wake-ups.
"""

from services.runtime.native_server.limits import Limits
from services.runtime.native_server.server import AVAILABLE, NativeServer

__all__ = ["AVAILABLE", "Limits", "NativeServer"]
