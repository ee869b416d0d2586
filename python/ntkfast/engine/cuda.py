"""Cards of CUDA are devices: this says which there are, when they are worthwhile, and what fits there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core
from . import memory
from .arrays import DLPACK_HOST, HOST, Arrays
from .backend import Backend, Devices, TileEngine, Tiles
from .cpu import CPU, Beside
from .cupy_arrays import cupy_arrays
from .program import Problem

# From so many pair-layers of one product on device="auto" takes a card: one hidden layer at 128 x 128, a tenth of a
# second on two cores.  It is an estimate, not a measurement: below it a CPU takes less time than starting a card does
# (some tenths of a second, once in a process). It is to be replaced when a card has been measured: bench/gpu_check.sh.
AUTO_PAIR_LAYERS = 1e8

# These are device types of DLPack (dlpack.h): CUDA's own memory, and managed memory; the host's for an emulated card.
DLPACK_CUDA = (2, 13)
DLPACK_CPU = (DLPACK_HOST,)


@dataclass(frozen=True)
class Device:
    """This describes a card.

    Attributes
    ----------
    name : str
    capability : (int, int)
        Compute capability.
    multiprocessors : int
    bytes, free_bytes : int
        Those of its memory; what is free changes.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    bytes: int
    free_bytes: int


def devices() -> list[Device]:
    """Return the cards that can be used."""
    return [Device(*device) for device in _core.cuda_devices()]


def emulated() -> bool:
    """Tell whether the CUDA engine is emulated on the host: its memory is the host's then."""
    return bool(_core.cuda_backend() == "emulation")


class SingleEngines(TileEngine):
    """Each of several tiles has an engine on a card, and all are stored."""

    def __init__(self, engines: list[Any]) -> None:
        self._engines = engines
        most = max(engine.exponent for engine in engines)
        self.scale = 2.0**most
        self._shares = [2.0 ** (engine.exponent - most) for engine in engines]  # an engine scales its tile alone

    def diagonal(self) -> np.ndarray:
        diagonals = [share * e.diagonal() for share, e in zip(self._shares, self._engines, strict=True)]
        return np.concatenate(diagonals, axis=1)

    def store(self) -> None:
        for engine in self._engines:
            engine.store()

    def product(self, arrays: Arrays, v: Any) -> Any:
        products = [arrays.product(engine, v[n]) for n, engine in enumerate(self._engines)]
        return arrays.stack([p if s == 1.0 else s * p for s, p in zip(self._shares, products, strict=True)])


class SingleTiles(Tiles):
    """Tiles go to a card one after the other, from one worker."""

    has_dense = False

    def __init__(self, card: CudaBackend) -> None:
        self._card = card

    def engine(self, problem: Problem, tiles: np.ndarray) -> SingleEngines:
        return SingleEngines([self._card.make(problem, tile[None]) for tile in tiles])

    def at_once(self, problem: Problem, columns: int, most: int) -> int:
        one, budget = self._card.peaks(problem, columns)["dense"], self._card.budget()
        budget.require("one tile", "use Tiles of a smaller size" + self._card.elsewhere, one)
        return min(most, budget.free // one)

    def on_host(self, at_once: int) -> int:
        return 1  # the fields of one engine after the other are made there

    def host_bytes(self, problem: Problem, columns: int) -> int:
        return CPU.peaks(problem, columns)["dense"]  # more than the fields alone

    def shares(self, threads: int) -> tuple[int, int]:
        return 1, threads


class CudaBackend(Backend):
    """This backend is a card, by its number."""

    elsewhere = ", or device='cpu'"
    has_columns = has_fourier = False

    def __init__(self, number: int) -> None:
        self._number = number
        self.name = f"cuda:{number}"
        self.where = f" on {self.name}"
        self.tiles = SingleTiles(self)

    def free(self) -> int:
        return devices()[self._number].free_bytes

    def estimate(self, problem: Problem, columns: int) -> dict[str, int]:
        function = _core.cuda_estimate_float32 if problem.dtype == np.float32 else _core.cuda_estimate_float64
        return function(*problem.program, problem.shape, columns, self._number)

    def make(self, problem: Problem, images: np.ndarray) -> Any:
        """Make the compiled engine for one image."""
        engine = _core.CudaEngineFloat32 if problem.dtype == np.float32 else _core.CudaEngineFloat64
        return engine(
            *problem.program,
            np.ascontiguousarray(images, dtype=np.float64),
            problem.noise,
            device=self._number,
            threads=problem.threads,
        )

    def columns_engine(self, problem: Problem, images: np.ndarray) -> Callable[[Any], Any]:
        return Beside(self, problem, images)

    def arrays(self, own: Arrays) -> Arrays:
        """Put right-hand sides of the host on the card once, if CuPy is there to hold them.

        Without it each product copies its vectors there and back.
        """
        return own if own.device != HOST or emulated() else cupy_arrays(self.name) or own

    def host_bytes(self, count: int) -> int:
        return 0

    def require_fields(self, problem: Problem) -> None:
        """Refuse fields that do not fit on the host, where they are computed in double."""
        parts = CPU.estimate(problem, 1)
        memory.require_memory(
            "the engine's fields, on the host", parts["fields"] + parts["building"], "use a smaller image"
        )

    def require_result(self, what: str, needed: int, hint: str) -> None:
        super().require_result(what, needed, hint)
        self.require(what, needed, hint)


class Cards(Devices):
    """These are the cards that CUDA sees."""

    kind, spellings = "cuda", ("cuda", "cuda:N")

    def names(self) -> list[str]:
        return [f"cuda:{n}" for n in range(len(devices()))]

    def at(self, number: int) -> CudaBackend:
        return CudaBackend(number)

    def choose(self, asked: str, number: int | None, near: str) -> CudaBackend:
        count = len(devices())
        if not count:
            raise RuntimeError(f"device={asked!r} cannot be used: {_core.cuda_why_unavailable()}; or use device='cpu'")
        if number is None:
            kind, _, at = near.partition(":")
            return CudaBackend(int(at) if kind == self.kind else 0)
        if number >= count:
            raise ValueError(f"device must name a card from 'cuda:0' to 'cuda:{count - 1}', got {asked!r}")
        return CudaBackend(number)

    def worthwhile(self, problem: Problem) -> CudaBackend | None:
        """Return card 0 if there is one, the problem is large enough to gain from it, and fits."""
        pairs = (problem.shape[1] * problem.shape[2]) ** 2 / 2
        layers = max(1, len(problem.network.convs) - 1)
        if _core.cuda_backend() != "cuda" or pairs * layers < AUTO_PAIR_LAYERS or not devices():
            return None
        card = CudaBackend(0)
        return card if card.peaks(problem, 3)["stream"] <= card.free() else None

    def holding(self, kind: int, number: int) -> str | None:
        return f"cuda:{number}" if kind in (DLPACK_CPU if emulated() else DLPACK_CUDA) else None

    def info(self) -> dict[str, Any]:
        cards = devices()
        return {
            "cuda": _core.cuda_backend(),
            "cuda_architectures": _core.cuda_architectures() or "none",
            "cuda_compiler": _core.cuda_compiler() or "none",
            "cuda_driver": _core.cuda_driver() or "none",
            "cuda_cards": [
                {
                    "name": card.name,
                    "capability": "{}.{}".format(*card.capability),
                    "multiprocessors": card.multiprocessors,
                    "bytes": card.bytes,
                }
                for card in cards
            ],
            "cuda_missing": None if cards else _core.cuda_why_unavailable(),
        }
