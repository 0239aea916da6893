"""The benchmarks: each compares interleaved runs of one process tree and keeps every raw sample."""

import os

# gRPC reads it once, as it is imported; its own lines would stand between the tables.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import services  # noqa: F401 -- says how gRPC is to run, which is read at the same moment
