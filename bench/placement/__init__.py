"""Planned placements against recorded routing, in figures and live."""
