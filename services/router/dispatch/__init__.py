"""What happens to one layer's pairs: shared out, sent, gathered, combined."""
