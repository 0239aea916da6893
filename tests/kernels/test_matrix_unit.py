"""The level of the processor's matrix unit has the bits of its emulation, and is used only where
it computes as that does.

A processor without the unit has it played: what the level's instructions would do is done by a
handler of the signal that they raise.
"""

import ctypes
import importlib
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services import kernels
from services.kernels.level import _native

SOURCES = Path(__file__).parent / "native"
KERNELS = Path(kernels.__file__).parent / "native"
COMPILER = shlex.split(os.environ.get("CC", "cc"))
USABLE = 3  # of matrix_check.h's states

# In a process of its own, since its handler is the whole process's.
RUN = """
import ctypes, json, sys
native = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
played = ctypes.CDLL(sys.argv[2])
unit, emulated = (
    ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(native, f"level_{name}")))
    for name in ("amx_bf16", "amx_emulated")
)
is_there = native.find_matrix_unit() == int(sys.argv[3])
if not is_there:
    played.play_matrix_unit()
passes = native.computes_as_emulated(unit)
different = played.count_differences(unit, emulated, ctypes.c_int64(100))
num_played = ctypes.c_int64.in_dll(played, "num_played").value
print(json.dumps([is_there, passes, different, num_played]))
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that plays the unit. Skips where it cannot be built, or the level was not."""
    if _native is None or not hasattr(_level_library(), "level_amx_bf16"):
        pytest.skip("the level was not built")
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("played") / "played.so"
    flags = ["-std=gnu11", "-O1", "-ffp-contract=off", "-shared", "-fPIC", f"-I{KERNELS}"]
    subprocess.run(
        [*COMPILER, *flags, "-o", str(made), str(SOURCES / "played.c"), "-lm"], check=True
    )
    return made


def _level_library() -> ctypes.CDLL:
    return ctypes.CDLL(str(_native.__file__), mode=ctypes.RTLD_GLOBAL)


def test_the_unit_s_products_have_the_emulation_s_bits(played: Path) -> None:
    if not ctypes.CDLL(str(played)).has_avx512_bf16():
        pytest.skip("this processor has no AVX-512 with bfloat16, which the level needs besides")
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(_native.__file__), str(played), str(USABLE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    is_there, passes, num_different, num_played = json.loads(ended.stdout)
    assert (passes, num_different) == (1, 0)
    assert (num_played == 0) == is_there
    assert is_there == ("amx_bf16" in kernels.LEVELS)


def test_the_emulation_rounds_each_sum_once_and_takes_what_is_tiny_for_zero(played: Path) -> None:
    native, checks = _level_library(), ctypes.CDLL(str(played))
    assert native is not None
    assert checks.count_wrong_sums(ctypes.c_int64(200_000)) == 0


@pytest.mark.parametrize("name", ["level_off_by_a_bit", "level_off"])
def test_a_unit_that_computes_other_numbers_is_found(played: Path, name: str) -> None:
    native, wrong = _level_library(), ctypes.CDLL(str(played))
    level = ctypes.c_char.in_dll(wrong, name)
    assert not native.computes_as_emulated(ctypes.byref(level))


@pytest.mark.parametrize("name", kernels.LEVELS)
def test_another_order_of_sums_is_none_of_its_faults(played: Path, name: str) -> None:
    native = _level_library()
    level = ctypes.c_char.in_dll(native, f"level_{name}")
    assert native.computes_as_emulated(ctypes.byref(level))


def test_a_unit_that_is_not_used_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if _native is None:
        pytest.skip("the kernels were not built")
    monkeypatch.delenv("MOESAIC_KERNELS", raising=False)
    monkeypatch.setattr(_native, "unused_unit", lambda: "the system does not lend it")
    with caplog.at_level(logging.WARNING):
        importlib.reload(sys.modules["services.kernels.level"])
    (line,) = caplog.messages
    assert line.startswith("the matrix unit is not used: the system does not lend it; kernels ")


def test_who_asks_for_it_all_the_same_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    if _native is None:
        pytest.skip("the kernels were not built")
    monkeypatch.setenv("MOESAIC_KERNELS", "amx_bf16")
    monkeypatch.setattr(_native, "levels", lambda: ("portable",))
    monkeypatch.setattr(_native, "unused_unit", lambda: "the system does not lend it")
    with pytest.raises(ImportError, match="only portable; its matrix unit is not used: the system"):
        importlib.reload(sys.modules["services.kernels.level"])


def test_the_emulated_level_is_chosen_by_name_alone() -> None:
    if not kernels.AVAILABLE:
        pytest.skip("the kernels were not built")
    assert kernels.EMULATED not in kernels.LEVELS
    before = kernels.level()
    kernels.set_level(kernels.EMULATED)
    try:
        assert kernels.level() == kernels.EMULATED
    finally:
        kernels.set_level(before)
