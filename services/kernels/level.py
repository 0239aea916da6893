"""The compiled module, if it was built, and the instruction set that its kernels use."""

import logging
import os

import torch

try:
    from services.kernels import _native as _native
except ImportError:  # no compiler was there at install time
    _native = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

# "off", or the best level that may be used: for finding out whether a kernel is at fault.
VARIABLE = "MOESAIC_KERNELS"


def _use_configured_level() -> bool:
    """Obey the environment; whether there are kernels to use. Raises ImportError for a level that
    is not there.
    """
    wanted = os.environ.get(VARIABLE, "")
    if _native is None or wanted == "off":
        return False
    unused = _native.unused_unit()
    if wanted and wanted not in _native.levels():
        there = ", ".join(_native.levels())
        why = "" if unused is None else f"; its matrix unit is not used: {unused}"
        raise ImportError(
            f"{VARIABLE}: {wanted!r}: this processor has no such kernels, only {there}{why}",
            name=__name__,
        )
    if wanted:
        _native.set_level(wanted)
    elif unused is not None:
        used = _native.level()
        logger.warning("the matrix unit is not used: %s; kernels %s are", unused, used)
    return True


# How the compiled module numbers the dtypes that it takes.
DTYPES = {torch.float32: 0, torch.bfloat16: 1}
AVAILABLE = _use_configured_level()
# The instruction sets that this processor has, the best first.
LEVELS: tuple[str, ...] = _native.levels() if AVAILABLE else ()
# Has the bits of the matrix unit's products on every processor, slowly. Only tests choose it.
EMULATED = "amx_emulated"


def level() -> str:
    """The instruction set in use, which the bits of results depend on; "off" without kernels."""
    return _native.level() if AVAILABLE else "off"


def set_level(name: str) -> None:
    """Use another of LEVELS, or EMULATED, from now on, in the whole process. Raises ValueError for
    any other name, and without kernels.
    """
    if not AVAILABLE or name not in (*LEVELS, EMULATED):
        raise ValueError(
            f"this processor has no kernels of level {name!r}, only {', '.join(LEVELS) or 'none'}"
        )
    _native.set_level(name)
