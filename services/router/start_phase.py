"""What a router that is not ready yet is doing, for its log and for whoever asks it."""

from enum import Enum

NOT_READY = "the router is not ready: it "


class StartPhase(Enum):
    """A phase of the start, in words that follow `NOT_READY`.

    They stay the same for as long as the phase lasts: who asks again and again logs them once.
    """

    TRUNK = "reads the trunk's weights"
    EXPERTS = "waits until every expert is loaded"
    WARM_UP = "warms up: every service computes a prompt"
