"""What a router sends to simulated devices, and for how long that alone would keep them busy."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.rig.simulated import DeviceTime
from services.router.dispatch.placement import FrameStream, Placement, Service
from services.router.peers.pace import Pace
from services.router.peers.stream import TimedReply
from services.router.peers.trust import Trust

Note = Callable[[int, str, int, int], None]  # lane, address, active experts, pairs


class SentFrames:
    """Notes the frames of each lane's layer, so that what was decided is known whatever else the
    machine does.
    """

    def __init__(self, time: DeviceTime) -> None:
        self._time = time
        self._busy: dict[int, dict[str, int]] = defaultdict(
            lambda: defaultdict(int)
        )  # lane -> address -> nanoseconds

    def through(self, placement: Placement) -> Placement:
        """The placement with services whose frames are noted."""
        return replace(
            placement,
            services=[_NotedService(service, self._note) for service in placement.services],
        )

    def take(self, lane: int) -> int:
        """Nanoseconds until the last device would be done with the lane's frames since this was
        last asked.
        """
        return max(self._busy.pop(lane, {}).values(), default=0)

    def _note(self, lane: int, address: str, num_active: int, num_pairs: int) -> None:
        self._busy[lane][address] += self._time.nanos(num_active, num_pairs)


@dataclass(frozen=True)
class _NotedService:
    service: Service
    note: Note

    @property
    def address(self) -> str:
        return self.service.address

    @property
    def pace(self) -> Pace:
        return self.service.pace

    @property
    def trust(self) -> Trust:
        return self.service.trust

    @property
    def streams(self) -> Sequence[FrameStream]:
        return [
            _NotedStream(stream, lane, self) for lane, stream in enumerate(self.service.streams)
        ]


@dataclass(frozen=True)
class _NotedStream:
    stream: FrameStream
    lane: int
    service: _NotedService

    def send(
        self, encode: Callable[[int, int], bytes], num_pairs: int, num_experts: int
    ) -> "asyncio.Future[TimedReply]":
        self.service.note(self.lane, self.service.address, num_experts, num_pairs)
        return self.stream.send(encode, num_pairs, num_experts)
