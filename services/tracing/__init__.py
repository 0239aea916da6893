"""The tracing service: a small stand-in for a tracing backend, where none runs."""
