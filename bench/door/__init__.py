"""bench.door: what a request costs that comes over HTTP instead of gRPC."""
