"""What drawing tokens from large vocabularies takes."""
