"""Arrays of other libraries as images and vectors, one file a library: see ``_libraries.py``."""
