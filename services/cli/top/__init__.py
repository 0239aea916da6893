"""`moesaic top`: what a cluster does, as it does it."""
