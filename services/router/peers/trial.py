"""Frames of the router's own, by which a service shows that it computes before it is given
requests.
"""

from collections.abc import Callable, Collection

from services.router.peers.expected import Expected
from services.router.peers.frame_lost import FrameLost
from services.router.peers.question import Question
from services.router.peers.stream import ExpertStream
from services.router.peers.trust import Trust
from services.runtime.notice import Notice
from services.wire.expert_key import ExpertKey


async def keep_trying(
    trust: Trust,
    expected: Expected,
    find: Callable[[], tuple[ExpertStream, Collection[ExpertKey]] | None],
    news: Notice,
) -> None:
    """Send a service trial frames whenever `trust` asks for one, until cancelled.

    `find` gives a stream to it and the experts that it hosts, or None while there is neither;
    `news` tells when that or its standing may be another. Who computed something wrongly is asked
    that.
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
        stream, ready = found
        question = trust.evidence
        if question is None:
            suspected = trust.suspected if trust.suspected in ready else None
            question = Question.of_zeros(expected, suspected or next(iter(ready)))
        elif not all(key in ready for key in question.keys):
            trust.put_off_trial()
            continue
        try:
            await _try(trust, question, stream)
        except FrameLost as error:
            if error.reason == "broken":  # which ends its connection, and all that belongs to it
                await news.wait()
            else:
                trust.fail_trial(str(error))


async def _try(trust: Trust, question: Question, stream: ExpertStream) -> None:
    answer = await question.sent_by(stream.send)
    fault = question.fault_of(answer.reply)
    if question.is_put_off(answer.reply):
        trust.put_off_trial()
    elif fault is None:
        trust.pass_trial()
    else:
        trust.fail_trial(fault)
