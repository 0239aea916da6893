"""One log format for every service, on stderr."""

import logging
import sys
import time
from typing import Any

from services.wire.quoting import escaped, one_line

MAX_LINE_BYTES = 8192
FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s {service} %(name)s: %(message)s"


def configure_logging(service: str, level: str) -> None:
    """Log `level` and above to stderr, every message in one line with the time in UTC and the
    service's name.

    What does not print is escaped, since clients and peers may have written it. Python's own
    warnings are logged too. Replaces what was configured before.
    """
    formatter = _OneLine(FORMAT.format(service=service), datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = one_line(record.message, MAX_LINE_BYTES)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return escaped(super().formatException(ei), kept="\n")
