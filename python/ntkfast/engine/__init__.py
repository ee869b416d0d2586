"""This folder stands between Python and the compiled engines."""

from .arrays import register_arrays
from .backend import register
from .cpu import Host
from .cuda import Cards
from .cupy_arrays import CuPyArrays
from .torch_arrays import TorchArrays

# Each kind of device has one line.
register(Host())
register(Cards())

# Each library of arrays in their memory has one too.
register_arrays("cupy", CuPyArrays.of)
register_arrays("torch", TorchArrays.of)
