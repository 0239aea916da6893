"""A message that a collector did not take."""


class NotTaken(Exception):
    """Says in a line why; `may_pass` where the same message may be taken a moment later."""

    def __init__(self, reason: str, *, may_pass: bool) -> None:
        super().__init__(" ".join(reason.split())[:300])
        self.may_pass = may_pass
