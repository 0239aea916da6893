"""Runs the model without its experts and sends token rows to the services that host them."""
