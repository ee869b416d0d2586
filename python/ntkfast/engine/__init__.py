"""Between Python and the compiled engines."""
