"""`moesaic bench`: puts load on a gateway and says how it was served."""
