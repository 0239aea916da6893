"""What a nursery is asked for: a process of a service."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

# A flag may be as long as a path, and there is one for all services' addresses.
MAX_MESSAGE_BYTES = 64 << 10


@dataclass(frozen=True)
class Birth:
    """The service, its flags, how `ps` shows it, and variables it has besides the nursery's own.

    Three descriptors go with it: one that is readable once the process may go on, or ended where
    it may not; one for its announcement; and one for its output.
    """

    service: str
    arguments: tuple[str, ...]
    title: str
    variables: Mapping[str, str]

    def message(self) -> bytes:
        """As it is sent. Raises ValueError where it is too long for that."""
        message = json.dumps(asdict(self)).encode()
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a birth takes {len(message)} bytes")
        return message

    @classmethod
    def read(cls, message: bytes) -> "Birth":
        """What was sent."""
        fields = json.loads(message)
        return cls(**{**fields, "arguments": tuple(fields["arguments"])})
