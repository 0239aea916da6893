"""Reads a trace: its tree, where its time went, and the verdict in words."""
