"""Waits for the answers to an attempt's frames, and has what is late computed elsewhere, too."""

import time
from collections.abc import Callable

from services.router.dispatch.gather import Answer, Gather, Gathered, answers_to
from services.router.dispatch.hedging import Hedging, Sent
from services.router.dispatch.placement import Placement
from services.router.dispatch.scatter import SentFrame
from services.router.peers.frame_lost import FrameLost
from services.router.peers.stream import TimedReply
from services.router.times.blame import InVain, Waited


class Awaiting:
    """Sorts answers by `gather`, on the placement of the moment."""

    def __init__(
        self, gather: Gather, hedging: Hedging, placement: Callable[[], Placement]
    ) -> None:
        self._gather = gather
        self._hedging = hedging
        self._placement = placement

    async def __call__(self, sent: Sent, waits: list[Waited]) -> Gathered:
        """Wait for all of them; the wait for each is added to `waits`."""
        clock, frames = sent.step.clock, sent.frames
        self.note_frames(len(frames))
        watch = self._hedging.watch(sent, self._placement())
        if watch is None:
            answers = all_answers = await answers_to(frames)
        else:
            try:
                all_answers = await answers_to(frames)
                answers = watch.counting(all_answers)
            finally:
                watch.stop()
        replies = [answer.times for _, answer in answers if isinstance(answer, TimedReply)]
        clock.charge_gather(replies, has_losses=len(replies) < len(answers))
        waits += (_wait_for(frame, answer, sent.began) for frame, answer in all_answers)
        return self._gather(sent.step, sent.outgoing.layer, answers)

    def note_frames(self, num_frames: int) -> None:
        """So many frames were sent, here or in an exchange: some may be sent twice for that."""
        self._hedging.note_frames(num_frames)


def _wait_for(frame: SentFrame, answer: Answer, began: int) -> Waited:
    """The wait for the frame's own service: in vain where it was lost, or overtaken by a copy."""
    if not isinstance(answer, TimedReply):
        at = answer.at if isinstance(answer, FrameLost) else time.perf_counter_ns()
        return InVain(frame.address, began, max(at, began))
    times = answer.times
    if times.service != frame.address:
        return InVain(frame.address, began, times.arrived, instead=times.service)
    return times
