"""The tensor stream against a bare echo."""
