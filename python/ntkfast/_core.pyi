"""Types of the compiled engine (csrc/bindings.cpp)."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

_Stage = tuple[int, float, float, bool, bool, float]
_Node = tuple[str, list[int], int, list[float]]
_Progress = Callable[[float], None] | None

class _Engine:
    def __init__(
        self,
        nodes: Sequence[_Node],
        circular: bool,
        nngp: bool,
        images: npt.NDArray[np.float64],
        noise: bool,
        *,
        isa: str,
        threads: int,
        lanes: int,
    ) -> None: ...
    def diagonal(self) -> npt.NDArray[np.float64]: ...
    def product(self, v: np.ndarray, progress: _Progress = None) -> np.ndarray: ...
    def store(self, progress: _Progress = None) -> None: ...
    @property
    def stored(self) -> bool: ...
    def dense(self, progress: _Progress = None) -> np.ndarray: ...
    def columns(self, pixels: npt.NDArray[np.int64], progress: _Progress = None) -> np.ndarray: ...

class EngineFloat32(_Engine): ...
class EngineFloat64(_Engine): ...

def _estimate(
    nodes: Sequence[_Node],
    circular: bool,
    nngp: bool,
    shape: tuple[int, int, int, int],
    columns: int,
    threads: int,
    lanes: int,
) -> tuple[int, int, int, int]: ...

estimate_float32 = _estimate
estimate_float64 = _estimate

def roofline(
    stages: Sequence[_Stage], channels: int, columns: int, isa: str, length: int, repeats: int, threads: int
) -> float: ...
def compiled_isas() -> list[str]: ...
def supported_isas() -> list[str]: ...
def default_threads() -> int: ...

max_lanes: int
openmp: bool
compiler: str
float_flags: str
__version__: str
