"""`moesaic certificates`: an authority and its certificates, to try mutual TLS with."""
