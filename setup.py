"""Declares the compiled kernels; all else about the package stands in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("services/kernels/native")

kernels = Extension(
    "services.kernels._native",
    sources=sorted(map(str, NATIVE.glob("*.c"))),
    depends=sorted(map(str, NATIVE.glob("*.h"))),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    # Roundings are part of the contract: a product and a sum are fused only where the code says so.
    extra_compile_args=["-O3", "-ffp-contract=off"],
    py_limited_api=True,
    optional=True,  # without a compiler the install succeeds and torch does the work
)

# The wheel is said to serve every Python from 3.11 on, as the limited API does.
setup(ext_modules=[kernels], options={"bdist_wheel": {"py_limited_api": "cp311"}})
