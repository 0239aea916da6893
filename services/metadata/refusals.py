"""How it is said that a checkpoint cannot be used: in one line that names what is at fault."""

from services.wire.errors import BadState

MAX_CHARACTERS = 300


class UnusableModel(BadState):
    """The checkpoint cannot be served; the message names the file, the tensor, the layer or the
    setting at fault.
    """


def in_one_line(error: BaseException) -> str:
    """What a library's error says, fit to stand at the end of a sentence."""
    return " ".join(str(error).split())[:MAX_CHARACTERS] or type(error).__name__
