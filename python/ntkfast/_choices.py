"""Names that arguments may have, for the modules that take them and for the command line that offers them.

Nothing is imported here: most modules that take them import SciPy, which takes longer than all of ``ntkfast --help``.
"""

METHODS = ("tiles", "exact", "nystrom")  # of denoise_ntk
RULES = ("calibrated", "recorrupted", "sure", "held_out")  # for stopping it
KERNELS = ("ntk", "nngp")
PADDINGS = ("zeros", "circular")
DEVICE = r"auto|cpu|cuda(?::(\d+))?"  # the card's number, if there is one, as a group
