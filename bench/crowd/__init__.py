"""A gateway under hostile clients and crowds."""
