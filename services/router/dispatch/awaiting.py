"""Waits for the answers to an attempt's frames, and has what is late computed elsewhere, too."""

from collections.abc import Callable

from services.router.dispatch.gather import Gather, Gathered, answers_to
from services.router.dispatch.hedging import Hedging, Sent
from services.router.dispatch.placement import Placement
from services.router.peers.stream import TimedReply
from services.router.times.receipt import ReplyTimes
from services.wire.errors import ServingError


class Awaiting:
    """Sorts answers by `gather`, on the placement of the moment."""

    def __init__(
        self, gather: Gather, hedging: Hedging, placement: Callable[[], Placement]
    ) -> None:
        self._gather = gather
        self._hedging = hedging
        self._placement = placement

    async def __call__(self, sent: Sent, times: list[ReplyTimes]) -> Gathered:
        """Wait for all of them; the times of the replies are added to `times`."""
        clock, frames = sent.step.clock, sent.frames
        self.note_frames(len(frames))
        watch = self._hedging.watch(sent, self._placement())
        if watch is None:
            answers = await answers_to(frames)
        else:
            try:
                answers = watch.counting(await answers_to(frames))
            finally:
                watch.stop()
        replies = [answer.times for _, answer in answers if isinstance(answer, TimedReply)]
        losses = (frame.address for frame, answer in answers if isinstance(answer, ServingError))
        clock.charge_gather(replies, next(losses, None))
        times += replies
        return self._gather(sent.step, sent.outgoing.layer, answers)

    def note_frames(self, num_frames: int) -> None:
        """So many frames were sent, here or in an exchange: some may be sent twice for that."""
        self._hedging.note_frames(num_frames)
