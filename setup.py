"""Declares the modules in C: kernels and frame codec; all else about the package stands in
pyproject.toml.
"""

from pathlib import Path

from setuptools import Extension, setup

KERNELS = Path("services/kernels/native")
CODEC = Path("services/wire/native")
# Both read what Python passes in the same way.
ARGUMENTS = KERNELS / "arguments.c"


def extension(name: str, sources: list[Path], headers: list[Path]) -> Extension:
    """A module in C that is optional: without a compiler the install succeeds, and Python and torch
    do the work.
    """
    return Extension(
        name,
        sources=sorted(map(str, sources)),
        depends=sorted(map(str, headers)),
        include_dirs=[str(KERNELS)],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        # Roundings are part of the contract: a product and a sum are fused only where the code says
        # so.
        extra_compile_args=["-O3", "-ffp-contract=off"],
        py_limited_api=True,
        optional=True,
    )


headers = [*KERNELS.glob("*.h"), *CODEC.glob("*.h")]
extensions = [
    extension("services.kernels._native", list(KERNELS.glob("*.c")), headers),
    extension("services.wire.native._codec", [*CODEC.glob("*.c"), ARGUMENTS], headers),
]

# The wheel is said to serve every Python from 3.11 on, as the limited API does.
setup(ext_modules=extensions, options={"bdist_wheel": {"py_limited_api": "cp311"}})
