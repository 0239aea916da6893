"""`python -m services.router` runs one router."""

import sys

from services.router.settings import RouterSettings
from services.runtime.process import run_service

if __name__ == "__main__":
    sys.exit(run_service("router", RouterSettings, sys.argv[1:]))
