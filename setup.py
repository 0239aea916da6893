"""Declares the modules in C: kernels, frame codec, connections, streams of frames; all else about
the package stands in pyproject.toml.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

KERNELS = Path("services/kernels/native")
CODEC = Path("services/wire/native")
HTTP2 = Path("services/wire/http2")
TLS = Path("services/wire/tls")
CONNECTIONS = Path("services/wire/connections")
ROUTER = Path("services/router/native")
EXPERT = Path("services/expert/native")
# All read what Python passes in the same way.
ARGUMENTS = KERNELS / "arguments.c"


def extension(
    name: str, sources: list[Path], headers: list[Path], libraries: tuple[str, ...] = ()
) -> Extension:
    """A module in C that is optional: without a compiler, or headers of what it links with, the
    install succeeds, and others do the work.
    """
    return Extension(
        name,
        sources=sorted(map(str, sources)),
        depends=sorted(map(str, headers)),
        include_dirs=[str(KERNELS), str(CODEC), str(HTTP2), str(TLS)],
        libraries=list(libraries),
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        # Roundings are part of the contract: a product and a sum are fused only where the code says
        # so.
        extra_compile_args=["-O3", "-ffp-contract=off"],
        py_limited_api=True,
        optional=True,
    )


headers = [
    header
    for folder in (KERNELS, CODEC, HTTP2, TLS, CONNECTIONS, ROUTER, EXPERT)
    for header in folder.glob("*.h")
]
extensions = [
    extension("services.kernels._native", list(KERNELS.glob("*.c")), headers),
    extension("services.wire.native._codec", [*CODEC.glob("*.c"), ARGUMENTS], headers),
]
if sys.platform == "linux":  # they wait for sockets, and date what comes, as Linux does it
    plain = [CODEC / name for name in ("frame.c", "reply.c", "checksum.c")]
    shared = [*HTTP2.glob("*.c"), *plain, ARGUMENTS]
    extensions += [
        extension("services.router._streams", [*ROUTER.glob("*.c"), *shared], headers),
        extension("services.expert._plane", [*EXPERT.glob("*.c"), *shared], headers),
        extension(
            "services.wire.connections._connections",
            [*CONNECTIONS.glob("*.c"), *HTTP2.glob("*.c")],
            headers,
        ),
        extension(
            "services.wire.tls._tls", list(TLS.glob("*.c")), headers, libraries=("ssl", "crypto")
        ),
    ]

# The wheel is said to serve every Python from 3.11 on, as the limited API does.
setup(ext_modules=extensions, options={"bdist_wheel": {"py_limited_api": "cp311"}})
