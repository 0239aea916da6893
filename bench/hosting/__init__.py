"""What clients notice of services that die, hang and move."""
