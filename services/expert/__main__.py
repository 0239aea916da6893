"""`python -m services.expert`: one expert service."""

import sys

from services.expert.settings import ExpertSettings
from services.runtime.process import run_service

if __name__ == "__main__":
    sys.exit(run_service("expert", ExpertSettings, sys.argv[1:], prog="python -m services.expert"))
