"""Which experts should be where, given how they are used: pure functions from loads to targets."""
