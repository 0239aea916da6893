"""What is known of one expert service, and how it is spoken to."""
