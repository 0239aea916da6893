"""What a checkpoint's JSON files say, for every service that reads them; it brings no torch."""
