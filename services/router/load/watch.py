"""Sees the routing of live traffic layer by layer: counts it always, and records it when asked."""

from collections.abc import Sequence

from services.router.arrays import Indices
from services.router.load.monitor import LoadMonitor
from services.router.load.recorder import RoutingRecorder
from services.wire.errors import Overloaded


class RoutingWatch:
    """What a router's dispatcher tells of each layer of each step; to be used by one thread."""

    def __init__(
        self, moe_layers: Sequence[int], num_experts: int, top_k: int, window_steps: int
    ) -> None:
        """`moe_layers` are those with experts in their order; `window_steps` is the monitor's
        window.
        """
        self._index = {layer: index for index, layer in enumerate(moe_layers)}
        self._num_experts, self._top_k, self._window_steps = num_experts, top_k, window_steps
        self._recorder: RoutingRecorder | None = None
        self.restart()

    def restart(self) -> None:
        """Count as if nothing had been seen; for what was not traffic."""
        self.monitor = LoadMonitor(len(self._index), self._num_experts, self._window_steps)
        self.num_steps = 0  # ever seen whole, where the monitor's end with its window

    def note(self, lane: int, layer: int, experts: Indices, *, is_decode: bool) -> None:
        """See one layer of one step of a lane.

        `layer` is the model's number of it, `experts` [rows x k] is flat with a negative one for a
        pair that is not computed, and `is_decode` says that every row is a sequence's next token.
        """
        index = self._index[layer]
        self.monitor.note(index, experts, is_decode=is_decode)
        if self._recorder is not None:
            self._recorder.note(lane, index, experts, is_decode=is_decode)
        self.num_steps += index == len(self._index) - 1

    def record(self, max_bytes: int) -> RoutingRecorder:
        """Write down the steps from now on, until told to stop. Raises Overloaded where that is
        being done already.
        """
        if self._recorder is not None:
            raise Overloaded(
                "the routing is being recorded already; there is one recording at a time"
            )
        self._recorder = RoutingRecorder(
            len(self._index), self._num_experts, self._top_k, max_bytes
        )
        return self._recorder

    def stop_recording(self) -> None:
        """Write nothing down any more; nothing happens where nothing is."""
        self._recorder = None
