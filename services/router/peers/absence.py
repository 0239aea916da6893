"""How soon a service that is not there is looked for again."""

# One that comes is used soon, where few are waited for.
LEAST_SECONDS, MOST_SECONDS = 0.2, 5.0
# Of the time that it has been away, the pause until the next attempt.
SHARE_OF_ABSENCE = 0.1
# Of all that are away together.
ATTEMPTS_PER_SECOND = 50.0


def pause_seconds(absent_seconds: float, num_absent: int) -> float:
    """Until the next attempt to reach a service that has been away for so long, as one of so
    many.
    """
    pause = max(SHARE_OF_ABSENCE * absent_seconds, num_absent / ATTEMPTS_PER_SECOND)
    return min(MOST_SECONDS, max(LEAST_SECONDS, pause))
