"""What services say to each other: the tensor codec and the errors."""
