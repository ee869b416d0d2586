"""These tools know the insides of the package: makers of generated files, and the tuning of constants."""
