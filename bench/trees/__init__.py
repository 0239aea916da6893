"""Tokens per second of this tree against another one."""
