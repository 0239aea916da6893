"""The services of moesaic; the import path is the folder path."""
