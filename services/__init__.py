"""The services of moesaic; the import path is the folder path."""

import os

# grpc reads it when it is imported. Without its event engine a small message costs a third less CPU
# and latency, since its threads hand every event on to one another (docs/performance.md). What the
# environment says already goes first.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
# Whatever is started here becomes another program at once, for which gRPC need not stop its
# threads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
