"""A cluster that is loaded and broken for a long time, and what it has kept of that."""
