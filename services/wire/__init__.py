"""What services say to each other: frames of rows with codec and checksums, and errors."""
