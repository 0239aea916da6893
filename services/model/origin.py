"""Where in which files something was read from, as those were: the same origin is the same
content.
"""

import hashlib
from dataclasses import dataclass, field

KEY_BYTES = 16


@dataclass(frozen=True)
class Origin:
    """A name for tensors in files of one state; one of the files was changed last at
    `changed_nanos`, by the system's clock, and they were looked at by `seen_nanos`.
    """

    key: bytes
    changed_nanos: int
    seen_nanos: int = field(compare=False)

    @classmethod
    def of(cls, places: str, changed_nanos: int, seen_nanos: int) -> "Origin":
        """Named by what says where it is, and of which state of the files."""
        key = hashlib.blake2b(places.encode(), digest_size=KEY_BYTES).digest()
        return cls(key, changed_nanos, seen_nanos)
