"""CRC-32 with zlib's polynomial, by multiplication without carries where the processor has it, else by zlib."""

import zlib

from services.kernels.level import AVAILABLE, _native

# Whether the kernel can be used: it has the same result everywhere, so that the level does not matter.
CHECKSUMS = AVAILABLE and _native.has_checksum()


def checksum(data: bytes | memoryview, before: int = 0) -> int:
    """The CRC-32 of what has the checksum `before`, followed by `data`."""
    return _native.checksum(data, before) if CHECKSUMS else zlib.crc32(data, before)
