"""Whether streams of frames and tokens may be carried by the compiled modules."""

import os

# "off" leaves all of them to gRPC: for finding out whether a compiled module is at fault.
VARIABLE = "MOESAIC_NATIVE_STREAMS"


def _is_on() -> bool:
    """What the environment says. Raises ImportError for a word that means nothing."""
    wanted = os.environ.get(VARIABLE) or "on"
    if wanted not in {"on", "off"}:
        raise ImportError(f"{VARIABLE}: {wanted!r}: it should be on or off", name=__name__)
    return wanted == "on"


ENABLED = _is_on()
