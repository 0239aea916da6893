"""Where in which files something was read from, as those were: the same origin is the same
content.
"""

import hashlib
from dataclasses import dataclass

KEY_BYTES = 16


@dataclass(frozen=True)
class Origin:
    """A name for tensors in files of one state; one of the files was changed last at
    `changed_nanos`, by the system's clock.
    """

    key: bytes
    changed_nanos: int

    @classmethod
    def of(cls, places: str, changed_nanos: int) -> "Origin":
        """Named by what says where it is, and of which state of the files."""
        return cls(hashlib.blake2b(places.encode(), digest_size=KEY_BYTES).digest(), changed_nanos)
