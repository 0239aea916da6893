"""Tokens per second of a cluster against transformers."""
