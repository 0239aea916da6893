"""Frames of the router's own, by which a service shows that it computes before it is given
requests.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from services.router.peers.expected import Expected
from services.router.peers.frame_lost import FrameLost
from services.router.peers.stream import ExpertStream
from services.router.peers.trust import Trust
from services.runtime.notice import Notice
from services.wire.errors import InvalidRequest, Overloaded
from services.wire.expert_key import ExpertKey
from services.wire.frames import DTYPES, encode_frame
from services.wire.outcomes import PASSING_REASONS
from services.wire.quoting import peers_words
from services.wire.received import ReceivedReply
from services.wire.row_bytes import are_finite

_OVERLOADED = Overloaded.status.value[0]


@dataclass(frozen=True, slots=True)
class Trial:
    """A frame of one row of zeros, for one expert: whatever its weights are, what comes back is
    finite.
    """

    expected: Expected
    expert: ExpertKey

    def encode(self, frame_id: int, remaining_nanos: int) -> bytes:
        """The message."""
        expected = self.expected
        return encode_frame(
            frame_id=frame_id,
            layer=self.expert.layer,
            rows=torch.zeros(1, expected.hidden_size, dtype=DTYPES[expected.wire_type]),
            pair_rows=np.zeros(1, np.uint32),
            pair_experts=np.array([self.expert.expert], np.uint32),
            remaining_nanos=remaining_nanos,
            traceparent="",
            requests=(),
            checksum=True,
        )

    @staticmethod
    def is_put_off(reply: ReceivedReply) -> bool:
        """Whether the answer says what the service is at, and nothing else."""
        if reply.error is not None:
            return bool(reply.error.status_code == _OVERLOADED)
        return bool(reply.failures) and all(
            failure.reason in PASSING_REASONS for failure in reply.failures
        )

    def fault_of(self, reply: ReceivedReply) -> str | None:
        """What is wrong with the answer, in words."""
        if reply.error is not None:
            return f"it was refused: {peers_words(reply.error.message)}"
        if reply.failures or not reply.has_checksum:
            return "it was not computed" if reply.failures else "its answer has no checksum"
        try:
            rows = reply.rows(DTYPES[self.expected.wire_type], self.expected.hidden_size)
        except InvalidRequest as error:
            return str(error)
        if len(rows) != 1:
            return f"{len(rows)} rows came back for one"
        return None if are_finite(rows) else "numbers came back that are not finite"


async def keep_trying(
    trust: Trust,
    expected: Expected,
    find: Callable[[], tuple[ExpertStream, ExpertKey] | None],
    news: Notice,
) -> None:
    """Send a service trial frames whenever `trust` asks for one, until cancelled.

    `find` gives a stream to it and an expert that it hosts, or None while there is neither; `news`
    tells when that or its standing may be another.
    """
    while True:
        seconds, found = trust.seconds_to_trial(), find()
        if seconds is None or seconds > 0:
            await news.wait(seconds)
            continue
        if found is None:
            trust.release()
            await news.wait()
            continue
        stream, expert = found
        try:
            await _try(trust, Trial(expected, expert), stream)
        except FrameLost as error:
            if error.reason == "broken":  # which ends its connection, and all that belongs to it
                await news.wait()
            else:
                trust.fail_trial(str(error))


async def _try(trust: Trust, trial: Trial, stream: ExpertStream) -> None:
    answer = await stream.send(trial.encode, num_pairs=1, num_experts=1)
    fault = trial.fault_of(answer.reply)
    if trial.is_put_off(answer.reply):
        trust.put_off_trial()
    elif fault is None:
        trust.pass_trial()
    else:
        trust.fail_trial(fault)
