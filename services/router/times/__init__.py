"""Where the time of a step went, and when a reply really arrived."""
