"""Names, bounds and defaults of arguments, for the modules that take them and for the command line that offers them.

Nothing is imported here: most modules that take them import SciPy, which takes longer than all of ``ntkfast --help``.
"""

METHODS = ("tiles", "whole-image")  # `ntkfast denoise` has Tiles and WholeImage
RULES = ("calibrated", "recorrupted", "sure", "held_out")  # for stopping it
KERNELS = ("ntk", "nngp")  # the command line has these kernels, by the names of their classes
PADDINGS = ("zeros", "circular")
SIZE, OVERLAP = 16, 10  # small tiles overlap less, by all but one pixel
PASSES = 2  # denoise_ntk makes two
# Far more than cores: each thread has its own sums and buffers, and the stacks of 100000 are more than a process gets.
MOST_THREADS = 1024
