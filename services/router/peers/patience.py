"""How long one expert service may take over each thing, before it is given up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Seconds, each until something is said."""

    describe_seconds: float = 10.0
    # Until its port for streams takes a connection, and answers the call on it: a firewall may
    # leave that port without a word, and whatever else stands there may never answer.
    connect_seconds: float = 2.0
    answer_seconds: float = 3.0
    # Until it says that it listens on a stream.
    first_grant_seconds: float = 10.0
    # Until it shows the hosting that it has, or the one that a load it ended has made.
    hosting_seconds: float = 10.0
    # Between two responses of a load: an expert is read, from a slow disk perhaps, behind another
    # router's.
    load_progress_seconds: float = 120.0
    # Until it says who plans.
    planning_seconds: float = 1.0
    # Until it is used again after it was connected to anew, by certificates that have replaced the
    # former ones: others wait with theirs.
    renewal_seconds: float = 3.0
    # Queued frames end before an expert is gone.
    unload_seconds: float = 30.0


PATIENCE = Patience()
