"""What clients are told of failures within: no addresses of the services behind the gateway."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

# An address as services call each other by: a host with a port, or an IP address alone. A host is
# looked for where its characters begin, and nowhere within them, so that a long text takes no time.
_HOST = r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|(?<![\w.-])[.-]*\w[\w.-]*)"
_ADDRESS = re.compile(
    rf"(?:dns:/*)?{_HOST}:\d{{2,5}}(?![\w.:])|\b\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?:%\w+)?\b"
)
INSTEAD = "(an address within)"


def without_addresses(said: str) -> str:
    """What was said, with a word in place of each address."""
    return _ADDRESS.sub(INSTEAD, said)


@contextmanager
def said_outside() -> Iterator[None]:
    """Raise a ServingError of the block without addresses; the log keeps them."""
    try:
        yield
    except ServingError as error:
        said = without_addresses(str(error))
        if said == str(error):
            raise
        logger.info("a request failed: %s", error)
        # Not named here: a frame that has a name for what it raises would be a cycle with it.
        raise type(error)(said, retry_after_seconds=error.retry_after_seconds) from None
