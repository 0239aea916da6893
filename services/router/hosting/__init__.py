"""Which service hosts which expert: what is there, what is wanted, and the way from one to the
other.
"""
