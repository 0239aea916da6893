"""How a bench is called, repeated, summed up and reported."""
