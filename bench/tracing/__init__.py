"""What tracing costs, and whether it tells the truth."""
