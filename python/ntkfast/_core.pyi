"""Types of the compiled engine (csrc/bindings.cpp)."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

_Stage = tuple[int, float, float, bool, bool, float]
_Node = tuple[str, list[int], int, list[float]]
_Progress = Callable[[float], None] | None

class _Engine:
    def diagonal(self) -> npt.NDArray[np.float64]: ...
    def product(self, v: np.ndarray, progress: _Progress = None) -> np.ndarray: ...
    def store(self, progress: _Progress = None) -> None: ...
    @property
    def stored(self) -> bool: ...
    def keep_coarse(self, progress: _Progress = None) -> None: ...
    @property
    def coarse_kept(self) -> bool: ...
    def dense(self, progress: _Progress = None) -> np.ndarray: ...

class EngineFloat32(_Engine): ...
class EngineFloat64(_Engine): ...

class _CpuEngine:
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
    def columns(self, pixels: npt.NDArray[np.int64], progress: _Progress = None) -> np.ndarray: ...
    @property
    def columns_bytes(self) -> int: ...

class CpuEngineFloat32(_CpuEngine, EngineFloat32): ...
class CpuEngineFloat64(_CpuEngine, EngineFloat64): ...

_DeviceArray = tuple[int, tuple[int, ...], int]  # address, shape, device

class _CudaEngine:
    def __init__(
        self,
        nodes: Sequence[_Node],
        circular: bool,
        nngp: bool,
        images: npt.NDArray[np.float64],
        noise: bool,
        *,
        device: int,
        threads: int,
    ) -> None: ...
    @property
    def device(self) -> int: ...
    def product_on_device(
        self, v: _DeviceArray, out: _DeviceArray, *, stream: int, progress: _Progress = None
    ) -> None: ...

class CudaEngineFloat32(_CudaEngine, EngineFloat32): ...
class CudaEngineFloat64(_CudaEngine, EngineFloat64): ...

def _estimate(
    nodes: Sequence[_Node],
    circular: bool,
    nngp: bool,
    shape: tuple[int, int, int, int],
    columns: int,
    threads: int,
    lanes: int,
) -> dict[str, int]: ...

estimate_float32 = _estimate
estimate_float64 = _estimate

def _cuda_estimate(
    nodes: Sequence[_Node], circular: bool, nngp: bool, shape: tuple[int, int, int, int], columns: int, device: int
) -> dict[str, int]: ...

cuda_estimate_float32 = _cuda_estimate
cuda_estimate_float64 = _cuda_estimate

def cuda_backend() -> str: ...
def cuda_devices() -> list[tuple[str, tuple[int, int], int, int, int]]: ...
def cuda_why_unavailable() -> str: ...
def cuda_architectures() -> str: ...
def cuda_compiler() -> str: ...
def cuda_driver() -> str: ...
def roofline(
    stages: Sequence[_Stage], channels: int, columns: int, isa: str, length: int, repeats: int, threads: int
) -> float: ...
def compiled_isas() -> list[str]: ...
def supported_isas() -> list[str]: ...
def default_threads() -> int: ...
def release_threads() -> None: ...

max_lanes: int
threads_by: str
compiler: str
float_flags: str
__version__: str
