"""What one expert service hosts, as far as its hosting watch has told."""

import asyncio
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from moesaic.v1 import expert_pb2
from services.runtime.notice import Notice
from services.wire.errors import Unavailable
from services.wire.expert_key import ExpertKey

Ready = npt.NDArray[np.bool_]  # [experts]: whether an expert of one layer is ready


class KnownHosting:
    """The newest hosting message of a connection, and who is ready by it; empty while there is
    none.
    """

    def __init__(self, address: str, num_experts: int) -> None:
        self._address = address
        self._num_experts = num_experts
        self._changed = Notice()
        self._set(expert_pb2.WatchHostingResponse())

    def take(self, message: expert_pb2.WatchHostingResponse) -> None:
        """The service said so. Raises Unavailable when it is older than what the service said
        before.
        """
        if message.generation < self.message.generation:
            raise Unavailable(
                f"expert service {self._address} went from hosting generation "
                f"{self.message.generation} back to "
                f"{message.generation}"
            )
        self._set(message)

    def forget(self) -> None:
        """The connection is gone."""
        self._set(expert_pb2.WatchHostingResponse())

    async def until(self, instance: str, generation: int, timeout_seconds: float) -> None:
        """Return once `generation` of `instance`, or a later one, is known.

        Raises Unavailable when the instance is gone or the time is up.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.message.instance == instance and self.message.generation < generation:
                    await self._changed.wait()
        except TimeoutError:
            raise Unavailable(
                f"expert service {self._address} did not show hosting generation {generation}"
            ) from None
        if self.message.instance != instance:
            raise Unavailable(f"expert service {self._address} was lost")

    def _set(self, message: expert_pb2.WatchHostingResponse) -> None:
        ready: dict[int, Ready] = {}
        content_hashes: dict[ExpertKey, bytes] = {}
        for hosted in message.experts:
            if hosted.state != expert_pb2.EXPERT_STATE_READY:
                continue
            if hosted.layer not in ready:
                ready[hosted.layer] = np.zeros(self._num_experts, dtype=bool)
            ready[hosted.layer][hosted.expert] = True
            content_hashes[ExpertKey(hosted.layer, hosted.expert)] = hosted.content_hash
        self.message = message
        self.ready: Mapping[int, Ready] = ready  # by layer, [experts]
        self.content_hashes: Mapping[ExpertKey, bytes] = content_hashes
        self._changed.send()
