"""`moesaic trace`: a trace in the terminal, and as files for other viewers."""
