"""One log format for every service, on stderr."""

import logging
import sys
import time

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s {service} %(name)s: %(message)s"


def configure_logging(service: str, level: str) -> None:
    """Log `level` and above to stderr, every line with the time in UTC and the service's name.

    Python's own warnings are logged too. Replaces what was configured before.
    """
    formatter = logging.Formatter(FORMAT.format(service=service), datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
