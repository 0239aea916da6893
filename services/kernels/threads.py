"""How many threads compute a call of a kernel."""

from services.kernels.level import AVAILABLE, _native

# A megabyte of bfloat16 weights: below that, waking a thread takes as long as it saves.
NUMBERS_EACH = 1 << 19


def set_threads(count: int, *, numbers_each: int = NUMBERS_EACH) -> None:
    """Let a call use so many threads from now on, in the whole process, the calling one among them.

    No more are used than have so many numbers each to read, or work that takes as long.

    They are started where they are first wanted, and sleep between calls. Bits do not depend on
    their number. A call that has little to do, or comes while another one uses them, runs on its
    own thread alone. Raises ValueError below 1.
    """
    if count < 1 or numbers_each < 1:
        raise ValueError(f"a call cannot run on {count} threads with {numbers_each} numbers each")
    if AVAILABLE:
        _native.set_threads(count=count, numbers_each=numbers_each)


def threads() -> int:
    """How many threads a call may use; 1 without kernels."""
    return _native.threads() if AVAILABLE else 1
