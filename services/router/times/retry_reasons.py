"""Why frames are sent again: words for metrics."""

from services.wire.outcomes import PASSING_REASONS

NOT_FINITE = "not_finite"
# Those of a service's connection, which is made again, or watched by deadlines.
OF_CONNECTIONS = frozenset({"broken", "deadline", "lost"})
# Those of an answer.
ANSWER_REASONS = ("refused", "corrupted", "bad_reply", NOT_FINITE, *PASSING_REASONS.values())
RETRY_REASONS = (*sorted(OF_CONNECTIONS), *ANSWER_REASONS)
