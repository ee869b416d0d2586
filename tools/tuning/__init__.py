"""These scripts show how the constants inside the package were chosen; see README.md beside this file."""
