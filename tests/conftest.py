"""What holds for every test."""

import os

# Before grpc is imported: services that are stopped in the middle of calls, as here, are no news.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
