"""`python -m services.tracing`: one tracing service, from flags, variables and a file."""

import sys

from services.runtime.process import run_service
from services.tracing.settings import TracingSettings

if __name__ == "__main__":
    sys.exit(
        run_service("tracing", TracingSettings, sys.argv[1:], prog="python -m services.tracing")
    )
