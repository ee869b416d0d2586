"""Between Python and the compiled engines."""

from .arrays import register_arrays
from .backend import register
from .cpu import Host
from .cuda import Cards
from .cupy_arrays import CuPyArrays
from .torch_arrays import TorchArrays

# One line for each kind of device.
register(Host())
register(Cards())

# And for each library of arrays in their memory.
register_arrays("cupy", CuPyArrays.of)
register_arrays("torch", TorchArrays.of)
