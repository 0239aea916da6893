"""`moesaic routing`: writes down which experts the gates choose."""
