"""Files, pictures and the command line."""
