"""How a process lives: settings, server, channels, tracing, metrics, logging."""
