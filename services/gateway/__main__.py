"""`python -m services.gateway`: one gateway, from flags, variables and a file."""

import sys

from services.gateway.settings import GatewaySettings
from services.runtime.process import run_service

if __name__ == "__main__":
    sys.exit(
        run_service("gateway", GatewaySettings, sys.argv[1:], prog="python -m services.gateway")
    )
