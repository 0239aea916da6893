"""More services, layers, rows and steps in flight."""
