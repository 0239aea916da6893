"""Hosts experts and applies them to token rows."""
