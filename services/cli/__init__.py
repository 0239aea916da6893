"""The `moesaic` command."""
