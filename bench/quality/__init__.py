"""This measures how well pictures are denoised, how fast and in how much memory, beside other denoisers."""
