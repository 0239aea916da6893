"""How many lanes run beside each other, found by measuring."""
